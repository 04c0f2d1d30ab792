"""FINE_TUNE against FEATURE_EXTRACTION of detectors and segmentation networks on the same few scenes.

    python tests/benchmarks/training/small_scenes.py [--tasks DETECTION,SEGMENTATION] [--sets stamps,clipart]
        [--seeds 0,1] [--size 96] [--pictures 40,12,40] [--folder /tmp/photo-sets]

A scene is a piece of a photograph with one to three cut-out pictures pasted on it, whose transparency gives exact boxes
and masks. No cut-out is in two splits. Everything but the size is as its defaults are; TEST decides nothing. One line a
run: the task's metric on VAL and TEST of both strategies, epochs and seconds of both phases, and what FINE_TUNE kept.

FINE_TUNE goes on from the checkpoint that FEATURE_EXTRACTION left: its first phase is the same to the last bit.
`photo_sets.py` makes the cut-outs.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).parents[2]))

from photo_sets import DEFAULT_FOLDER, make_sets

from enxerto.vision.blobs import FolderBlobs
from enxerto.vision.catalogue import get_facts
from enxerto.vision.datasets.samples import Annotation, Box, StoredSample
from enxerto.vision.finetuning import FinetuneSpec, Strategy
from enxerto.vision.snapshots import Manifest, encode_mask
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.export import torch_network
from enxerto.vision.torch.recipe import Checkpoint, Job
from enxerto.vision.torch.recipes import get_recipe
from enxerto.vision.torch.weights import WeightsSources
from fakes.datasets import write_snapshot_of

CLASSES = {
    "stamps": ("birds", "fruit", "mammals", "vegetables"),
    "clipart": ("beverages", "birds", "bugs", "fruit"),
}
NAMES = {Task.DETECTION: "ssdlite", Task.SEGMENTATION: "unet"}
SPLITS = (Split.TRAIN, Split.VAL, Split.TEST)
SHARES = (0.5, 0.15)
"""Of the cut-outs of a class that TRAIN and VAL are made of; the rest is TEST's."""

OPAQUE = 128
LEAST_VISIBLE = 0.5
"""Of a cut-out's pixels: one that another hides more of is left out of the scene."""


@dataclass(frozen=True)
class Measured:
    """What one strategy gave. `seconds` and `epochs` are of its own phase alone."""

    val: float
    test: float
    epochs: int
    seconds: float
    kept: str


class KeptInMemory:
    """Checkpoints of one run."""

    def __init__(self) -> None:
        self.last: Checkpoint | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep it."""
        self.last = checkpoint

    def load(self) -> Checkpoint | None:
        """The last one."""
        return self.last


class Composer:
    """Pastes cut-outs on photographs, with the seed.

    Args:
        task: whose annotations are made.
        size: of a square scene, pixels.
        seed: of everything that is drawn.
    """

    def __init__(self, task: Task, size: int, seed: int) -> None:
        self._task, self._size = task, size
        self._generator = np.random.default_rng(seed)
        self._photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]

    def scenes(self, root: Path, classes: Sequence[str], pictures: Sequence[int]) -> list[StoredSample]:
        """So many scenes of each split."""
        parts: dict[Split, list[list[Path]]] = {split: [] for split in SPLITS}
        for name in classes:
            files = sorted((root / name).iterdir())
            order = [files[index] for index in self._generator.permutation(len(files))]
            train, val = (round(share * len(files)) for share in SHARES)
            cut = (order[:train], order[train : train + val], order[train + val :])
            for split, part in zip(SPLITS, cut, strict=True):
                parts[split].append(part)
        return [
            self._scene(parts[split], split, number)
            for split, count in zip(SPLITS, pictures, strict=True)
            for number in range(count)
        ]

    def _scene(self, cut_outs: list[list[Path]], split: Split, number: int) -> StoredSample:
        picture = self._background()
        labels: list[int] = []
        shapes: list[np.ndarray] = []
        for position in range(int(self._generator.integers(1, 4))):
            # In turn, so that every class is in every split.
            label = (number + position) % len(cut_outs)
            placed, shape = self._paste(picture, cut_outs[label])
            hidden = [one & ~shape for one in shapes]
            if any(after.sum() < LEAST_VISIBLE * one.sum() for one, after in zip(shapes, hidden, strict=True)):
                continue
            picture, labels, shapes = placed, [*labels, label], [*hidden, shape]
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        known = _masked(labels, shapes, self._size) if self._task is Task.SEGMENTATION else _boxed(labels, shapes)
        return StoredSample(f"{split.value}/{number:04}.png", split, *picture.size, buffer.getvalue(), known)

    def _background(self) -> Image.Image:
        photograph = self._photographs[self._generator.integers(len(self._photographs))]
        side = int(self._generator.integers(self._size, min(2 * self._size, *photograph.size)))
        left, top = (int(self._generator.integers(whole - side)) for whole in photograph.size)
        piece = photograph.crop((left, top, left + side, top + side))
        return piece.resize((self._size, self._size), Image.Resampling.LANCZOS)

    def _paste(self, picture: Image.Image, files: list[Path]) -> tuple[Image.Image, np.ndarray]:
        """The scene with one more cut-out somewhere, and where that is opaque."""
        with Image.open(files[self._generator.integers(len(files))]) as opened:
            cut_out = opened.convert("RGBA")
        cut_out = cut_out.crop(cut_out.getchannel("A").getbbox())
        shrink = float(self._generator.uniform(0.3, 0.6)) * self._size / max(cut_out.size)
        width, height = (max(4, round(side * shrink)) for side in cut_out.size)
        small = cut_out.resize((width, height), Image.Resampling.LANCZOS)
        layer = Image.new("RGBA", picture.size)
        left, top = (int(self._generator.integers(self._size - side)) for side in small.size)
        layer.paste(small, (left, top))
        placed = Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")
        return placed, np.asarray(layer.getchannel("A")) >= OPAQUE


def _boxed(labels: list[int], shapes: list[np.ndarray]) -> Annotation:
    boxes = []
    for label, shape in zip(labels, shapes, strict=True):
        rows, columns = np.nonzero(shape)
        right, bottom = columns.max() + 1, rows.max() + 1
        boxes.append(Box(label, float(columns.min()), float(rows.min()), float(right), float(bottom)))
    return Annotation(boxes=tuple(boxes))


def _masked(labels: list[int], shapes: list[np.ndarray], size: int) -> Annotation:
    mask = np.zeros((size, size), np.uint8)
    for label, shape in zip(labels, shapes, strict=True):
        mask[shape] = label + 1
    return Annotation(mask=encode_mask(mask))


def measure(job: Job) -> Measured:
    """Train what the checkpoints do not have yet, and measure it."""
    recipe = get_recipe(job.spec.task)
    started = time.perf_counter()
    trained = recipe.train(job)
    seconds = time.perf_counter() - started
    assert trained.served is not None
    test = recipe.evaluate(torch_network(trained.served, job.spec.task), job, Split.TEST, trained).score
    phase = trained.history[-1].phase
    epochs = sum(1 for one in trained.history if one.phase is phase)
    return Measured(trained.history[trained.best].score, test, epochs, seconds, trained.notes.get("kept", ""))


def compare(data: tuple[Manifest, FolderBlobs], task: Task, seed: int, size: int) -> tuple[Measured, Measured]:
    """FEATURE_EXTRACTION, and FINE_TUNE from there."""
    heads = FinetuneSpec.with_defaults(NAMES[task], task=task, encoder="efficientnet_lite0", image_size=size, seed=seed)
    job = Job(
        spec=heads,
        facts=get_facts(heads.base_model),
        manifest=data[0],
        blobs=data[1],
        sources=WeightsSources(download=False),
        where=Distribution(),
        compute=Compute("cpu", None, torch.get_num_threads()),
        checkpoints=KeptInMemory(),
    )
    tuned = FinetuneSpec.with_defaults(
        NAMES[task], task=task, encoder="efficientnet_lite0", image_size=size, seed=seed, strategy=Strategy.FINE_TUNE
    )
    return measure(job), measure(replace(job, spec=tuned))


def main() -> None:
    """Run all combinations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="DETECTION,SEGMENTATION")
    parser.add_argument("--sets", default="stamps,clipart")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--pictures", default="40,12,40", help="of TRAIN, VAL and TEST")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    given = parser.parse_args()
    pictures = [int(count) for count in given.pictures.split(",")]
    gains = []
    for made in make_sets(given.folder, tuple(given.sets.split(",")), cut_out=True):
        for task in map(Task, given.tasks.split(",")):
            names = CLASSES[made.name]
            for seed in map(int, given.seeds.split(",")):
                with tempfile.TemporaryDirectory() as scratch:
                    samples = Composer(task, given.size, seed).scenes(made.folder, names, pictures)
                    known = ("background", *names) if task is Task.SEGMENTATION else names
                    data = write_snapshot_of(samples, task, known, Path(scratch))
                    heads, tuned = compare(data, task, seed, given.size)
                gains.append(tuned.test - heads.test)
                print(
                    f"{task} {made.name}, seed {seed}: FEATURE_EXTRACTION {heads.val:.3f} on VAL, {heads.test:.3f} on "
                    f"TEST ({heads.epochs} epochs, {heads.seconds:.0f} s), FINE_TUNE {tuned.val:.3f}, {tuned.test:.3f} "
                    f"({tuned.epochs} epochs more, {tuned.seconds:.0f} s more; kept {tuned.kept})",
                    flush=True,
                )
    print(f"mean gain on TEST {100 * sum(gains) / len(gains):+.1f} points, worst {100 * min(gains):+.1f}")


if __name__ == "__main__":
    main()
