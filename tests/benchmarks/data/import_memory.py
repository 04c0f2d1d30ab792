"""Resident memory and time of an import, at two sizes, so that the slope says what more pictures cost.

    python tests/benchmarks/data/import_memory.py --counts 5000 20000
    python tests/benchmarks/data/import_memory.py --counts 5000 20000 --task DETECTION
    python tests/benchmarks/data/import_memory.py --counts 100000 --task SEGMENTATION --read-only

Each size is imported by a process of its own: scan, then shards. The pictures are 64 x 64 JPEG; for DETECTION and
SEGMENTATION a COCO file gives each of them five objects with polygons of 20 points. With --read-only the annotations
are read and the pictures not looked at.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10


def draw(folder: Path, count: int) -> None:
    """`count` different pictures in class folders."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class_{label}").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = folder / f"class_{number % CLASSES}" / f"{number:06d}.jpg"
        cells = generator.integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC).save(file, quality=90)


def annotate(folder: Path) -> None:
    """Write `instances.json` for the pictures of a folder."""
    generator = np.random.default_rng(0)
    turns = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, file in enumerate(sorted(folder.rglob("*.jpg"))):
        name = file.relative_to(folder).as_posix()
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
        for _ in range(5):
            x, y, radius = (float(value) for value in generator.uniform((14, 14, 4), (50, 50, 12)))
            ring = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1).round(2).ravel()
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": int(generator.integers(CLASSES)),
                    "bbox": [x - radius, y - radius, 2 * radius, 2 * radius],
                    "segmentation": [ring.tolist()],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": label, "name": f"class_{label}"} for label in range(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def peak_kib() -> int:
    """Most memory that this process has had resident; getrusage would count what its parent had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def measure(folder: Path, task: str) -> dict[str, float]:
    """Import the folder in this process."""
    from enxerto.vision.datasets.scanning import scan
    from enxerto.vision.snapshots import FolderBlobs, write_snapshot
    from enxerto.vision.specs import Task

    before = peak_kib()
    with tempfile.TemporaryDirectory() as blobs:
        started = time.perf_counter()
        found = scan(folder, Task(task))
        scanned = time.perf_counter()
        assert not found.errors, found.errors[:3]
        write_snapshot(found, FolderBlobs(Path(blobs)))
        written = time.perf_counter()
    peak = peak_kib()
    return {
        "images": len(found.samples),
        "scan_s": round(scanned - started, 2),
        "write_s": round(written - scanned, 2),
        "rss_before_mib": round(before / 1024, 1),
        "rss_peak_mib": round(peak / 1024, 1),
    }


def measure_reading(folder: Path, task: str) -> dict[str, float]:
    """Read the annotations of the folder in this process."""
    from enxerto.vision.datasets.findings import Finding
    from enxerto.vision.datasets.formats import find_format
    from enxerto.vision.datasets.tree import Tree
    from enxerto.vision.specs import Task

    tree = Tree(folder)
    before, started = peak_kib(), time.process_time()
    found = find_format(tree, Task(task))
    assert not isinstance(found, Finding), found
    reading = found.read(tree, Task(task))
    seconds, peak = time.process_time() - started, peak_kib()
    assert not reading.findings, reading.findings[:3]
    return {
        "images": len(reading.pictures),
        "read_cpu_s": round(seconds, 2),
        "rss_before_mib": round(before / 1024, 1),
        "rss_peak_mib": round(peak / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--folder", type=Path, help="measure this folder in this process and print JSON")
    parser.add_argument("--task", default="CLASSIFICATION", choices=["CLASSIFICATION", "DETECTION", "SEGMENTATION"])
    parser.add_argument("--read-only", action="store_true", help="only the annotations")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps((measure_reading if options.read_only else measure)(options.folder, options.task)))
        return
    results = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder), count)
            if options.task != "CLASSIFICATION":
                annotate(Path(folder))
            command = [sys.executable, __file__, "--folder", folder, "--task", options.task]
            command += ["--read-only"] if options.read_only else []
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(answer.stdout))
        print(results[-1])
    if len(results) > 1:
        first, last = results[0], results[-1]
        slope = (last["rss_peak_mib"] - first["rss_peak_mib"]) * 1024 / (last["images"] - first["images"])
        at_100k = last["rss_peak_mib"] + slope * (100_000 - last["images"]) / 1024
        print({"kib_per_image": round(slope, 2), "extrapolated_mib_at_100000": round(at_100k)})


if __name__ == "__main__":
    main()
