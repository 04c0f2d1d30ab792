"""Resident memory and time of validation, import and training of many small pictures, on a whole platform.

    python tests/benchmarks/training/scale.py                    # 100,000 pictures of 64 x 64
    python tests/benchmarks/training/scale.py --count 5000
    python tests/benchmarks/training/scale.py --folder FOLDER    # pictures that are there already

Everything goes through the front door: the folder is uploaded, validated, imported, and trained on twice with
MobileNetV3-Small from random numbers at 64 pixels: FEATURE_EXTRACTION for `--epochs`, then FINE_TUNE for `--minutes`.
Every process of the platform is looked at twice a second; the figure of a process is the most memory that it has had
resident (VmHWM), shared pages included. The figures so far are printed after each stage.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from enxerto.local import processes
from platforms import Platform, running_platform

CLASSES = 10
SIDE = 64
MODEL = "mobilenet-v3-small"


def draw(folder: Path, count: int) -> None:
    """`count` different pictures in class folders; the classes differ in their colours."""
    generator = np.random.default_rng(0)
    tints = generator.integers(0, 128, (CLASSES, 3))
    for label in range(CLASSES):
        (folder / f"class_{label}").mkdir(parents=True)
    for number in range(count):
        label = number % CLASSES
        cells = (generator.integers(0, 128, (5, 5, 3)) + tints[label]).astype(np.uint8)
        file = folder / f"class_{label}" / f"{number:06d}.jpg"
        Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=90)


class Watch:
    """The peaks of a platform's processes, by what they are."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._over = threading.Event()
        self.peaks_mib: dict[str, int] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look until the end of the block."""
        thread = threading.Thread(target=self._look_often)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _look_often(self) -> None:
        while not self._over.wait(0.5):
            for process in processes.family(self._instance):
                try:
                    name, peak = _name(process), _peak_mib(process.pid)
                except (psutil.Error, OSError, LookupError, StopIteration):
                    continue  # it ended while it was looked at
                self.peaks_mib[name] = max(peak, self.peaks_mib.get(name, 0))


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    for service in ("registry", "training", "inference"):
        if f"enxerto.{service}" in words:
            return service
    if any("enxerto.training.worker" in word for word in words):
        return "job"
    # Ray's workers call themselves `ray::Class.method()`, everything else has a path.
    return words[0].rsplit("/", 1)[-1].split("(")[0].split(" ")[0]


def _peak_mib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


def measure(platform: Platform, folder: Path, watch: Watch, epochs: int, minutes: float) -> dict[str, object]:
    """Validate, import and train."""
    client, seconds = platform.client, {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[what] = round(time.perf_counter() - started, 1)
        print(what, seconds[what], "s, MiB so far:", watch.peaks_mib, flush=True)

    with timed("validate"):
        report = client.validate_dataset("scale", folder)
    with timed("import"):
        snapshot = client.import_dataset("scale", folder)
    runs = {}
    lengths: dict[str, dict[str, Any]] = {
        "FEATURE_EXTRACTION": {"epochs": epochs},
        "FINE_TUNE": {"stop": {"max_duration": minutes * 60}},
    }
    for strategy, length in lengths.items():
        with timed(strategy):
            run = client.train(
                snapshot,
                model=f"scale-{strategy.lower().replace('_', '-')}",
                base_model=MODEL,
                strategy=strategy,
                weights="NONE",
                image_size=SIDE,
                **length,
            )
            ended = client.wait(run.name)
        runs[strategy] = {"state": str(ended.state), "stop_reason": str(ended.stop_reason)}
    return {"findings": len(report.findings), "seconds": seconds, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="class folders to use instead of drawing pictures")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, running_platform() as platform:
        folder = options.folder or Path(scratch) / "pictures"
        if not options.folder:
            draw(folder, options.count)
        watch = Watch(platform.state.instance)
        with watch.running():
            answer = measure(platform, folder, watch, options.epochs, options.minutes)
        mine = _peak_mib(os.getpid())
    print(json.dumps({**answer, "peaks_mib": {**watch.peaks_mib, "client": mine}}, indent=2))


if __name__ == "__main__":
    main()
