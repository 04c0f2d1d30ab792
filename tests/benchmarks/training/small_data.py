"""FINE_TUNE against FEATURE_EXTRACTION on the same few pictures, both as their defaults are.

    python tests/benchmarks/training/small_data.py [--sets stamps,clipart,emoji] [--images 5,10,20] [--seeds 0,1]
        [--size 224] [--folder /tmp/photo-sets]

Of every class so many pictures are known, a fifth of them (at least one) for validation; another dozen are the test
split, which decides nothing. One line a run: accuracy on the test split, and what FINE_TUNE kept.
`photo_sets.py` makes the folders.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from enxerto.vision.blobs import FolderBlobs
from enxerto.vision.catalogue import get_facts
from enxerto.vision.datasets.samples import Annotation, StoredSample
from enxerto.vision.finetuning import FinetuneSpec, Strategy
from enxerto.vision.snapshots import Manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.export import torch_network
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.recipes import get_recipe
from enxerto.vision.torch.weights import WeightsSources
from fakes.datasets import write_snapshot_of

TEST = 12
LEAST_TEST = 3


def snapshot(root: Path, images: int, seed: int, folder: Path) -> tuple[Manifest, FolderBlobs]:
    """So many known pictures of each class, drawn with the seed, and test pictures."""
    generator = random.Random(seed)
    samples: list[StoredSample] = []
    names: list[str] = []
    for found in sorted(path for path in root.iterdir() if path.is_dir()):
        files = sorted(found.iterdir())
        if len(files) < images + LEAST_TEST:
            continue
        generator.shuffle(files)
        val = max(1, round(0.2 * images))
        for index, file in enumerate(files[: images + TEST]):
            split = Split.VAL if index < val else Split.TRAIN if index < images else Split.TEST
            with Image.open(file) as picture:
                width, height = picture.size
            path = f"{found.name}/{file.name}"
            samples.append(StoredSample(path, split, width, height, file.read_bytes(), Annotation(label=len(names))))
        names.append(found.name)
    return write_snapshot_of(samples, Task.CLASSIFICATION, tuple(names), folder)


def measure(data: tuple[Manifest, FolderBlobs], strategy: Strategy, seed: int, size: int) -> tuple[float, str, float]:
    """Test accuracy, what was kept, and seconds of training."""
    spec = FinetuneSpec.with_defaults(strategy=strategy, image_size=size, seed=seed)
    job = Job(
        spec=spec,
        facts=get_facts(spec.base_model),
        manifest=data[0],
        blobs=data[1],
        sources=WeightsSources(download=False),
        where=Distribution(),
        compute=Compute("cpu", None, torch.get_num_threads()),
    )
    recipe = get_recipe(Task.CLASSIFICATION)
    started = time.perf_counter()
    trained = recipe.train(job)
    seconds = time.perf_counter() - started
    assert trained.served is not None
    score = recipe.evaluate(torch_network(trained.served, spec.task), job, Split.TEST, trained).score
    return score, trained.notes.get("kept", ""), seconds


def main() -> None:
    """Run all combinations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="stamps,clipart,emoji")
    parser.add_argument("--images", default="5,10,20")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/photo-sets"))
    given = parser.parse_args()
    gains = []
    for images in map(int, given.images.split(",")):
        for name in given.sets.split(","):
            for seed in map(int, given.seeds.split(",")):
                with tempfile.TemporaryDirectory() as scratch:
                    data = snapshot(given.folder / name, images, seed, Path(scratch))
                    probe, _, probe_s = measure(data, Strategy.FEATURE_EXTRACTION, seed, given.size)
                    tuned, kept, tuned_s = measure(data, Strategy.FINE_TUNE, seed, given.size)
                gains.append(tuned - probe)
                print(
                    f"{name}, {images} a class, seed {seed}: FEATURE_EXTRACTION {probe:.3f} ({probe_s:.0f} s), "
                    f"FINE_TUNE {tuned:.3f} ({tuned_s:.0f} s; {kept}), {data[0].count(Split.TEST)} test pictures",
                    flush=True,
                )
    print(f"mean gain {100 * sum(gains) / len(gains):+.1f} points, worst {100 * min(gains):+.1f}")


if __name__ == "__main__":
    main()
