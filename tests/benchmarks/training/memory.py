"""Resident memory of a training worker over many small pictures, without Ray, at a few sizes.

    python tests/benchmarks/training/memory.py --counts 2500 10000
    python tests/benchmarks/training/memory.py --counts 100000 --strategy FINE_TUNE

Each size is trained by a process of its own, from random numbers on 64 x 64 JPEG in 10 classes. The
slope between the first and the last size says what more pictures cost. `scale.py` measures a whole platform.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from enxerto.vision.datasets.samples import Annotation, StoredSample
from enxerto.vision.finetuning import FinetuneSpec, Strategy, Weights
from enxerto.vision.specs import Split, Task
from fakes.datasets import write_snapshot_of

CLASSES = 10
SIDE = 64


def pictures(count: int) -> Iterator[StoredSample]:
    """`count` different pictures; one in ten is for validation and one in ten for the test."""
    generator = np.random.default_rng(0)
    for number in range(count):
        cells, buffer = generator.integers(0, 255, (5, 5, 3), dtype=np.uint8), io.BytesIO()
        Image.fromarray(cells).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        split = {0: Split.VAL, 1: Split.TEST}.get(number // CLASSES % 10, Split.TRAIN)
        annotation = Annotation(number % CLASSES)
        yield StoredSample(f"{number:06d}.jpg", split, SIDE, SIDE, buffer.getvalue(), annotation)


def train(folder: Path, base_model: str, strategy: str, epochs: int) -> None:
    """Train in this process and print its peak."""
    import torch

    from enxerto.vision.blobs import FolderBlobs
    from enxerto.vision.catalogue import get_facts
    from enxerto.vision.snapshots import Manifest
    from enxerto.vision.torch.classification.training import ClassificationRun
    from enxerto.vision.torch.collectives import Distribution
    from enxerto.vision.torch.devices import Compute
    from enxerto.vision.torch.recipe import Job
    from enxerto.vision.torch.weights import WeightsSources

    manifest = Manifest.from_bytes((folder / "manifest").read_bytes())
    spec = FinetuneSpec.with_defaults(
        base_model, strategy=Strategy(strategy), weights=Weights.NONE, image_size=SIDE, epochs=epochs
    )
    job = Job(
        spec=spec,
        facts=get_facts(base_model),
        manifest=manifest,
        blobs=FolderBlobs(folder / "blobs"),
        sources=WeightsSources(download=False),
        where=Distribution(),
        compute=Compute("cpu", None, torch.get_num_threads()),
        on_epoch=lambda _: None,
    )
    before = peak_mib()
    ClassificationRun(job).run()
    images = sum(manifest.count(split) for split in Split)
    print(json.dumps({"images": images, "rss_before_mib": before, "rss_peak_mib": peak_mib()}))


def peak_mib() -> float:
    """Most memory that this process has had resident."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--strategy", default="FEATURE_EXTRACTION", choices=["FEATURE_EXTRACTION", "FINE_TUNE"])
    parser.add_argument("--base-model", default="mobilenet_v3_small")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="train on this folder's snapshot in this process")
    options = parser.parse_args()
    if options.folder:
        train(options.folder, options.base_model, options.strategy, options.epochs)
        return
    results = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            names = tuple(f"class_{label}" for label in range(CLASSES))
            manifest, _ = write_snapshot_of(pictures(count), Task.CLASSIFICATION, names, folder)
            (folder / "manifest").write_bytes(manifest.to_bytes())
            command = [sys.executable, __file__, "--folder", scratch, "--strategy", options.strategy]
            command += ["--epochs", str(options.epochs), "--base-model", options.base_model]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(answer.stdout))
        print(results[-1], flush=True)
    if len(results) > 1:
        first, last = results[0], results[-1]
        slope = (last["rss_peak_mib"] - first["rss_peak_mib"]) * 1024 / (last["images"] - first["images"])
        print({"kib_per_image": round(slope, 2)})


if __name__ == "__main__":
    main()
