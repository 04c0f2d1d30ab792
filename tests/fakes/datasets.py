"""Data sets drawn in memory, and snapshots made of them without folders or imports.

    manifest, blobs = snapshot_of(detection_scenes(12), tmp_path)

Shapes of one colour each lie on textured backgrounds: easy for a tiny network, and different in every picture.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from enxerto.vision.datasets.samples import Annotation, Box, StoredSample
from enxerto.vision.datasets.statistics import DatasetStatistics, Occurrences, summarise
from enxerto.vision.snapshots import FolderBlobs, Manifest, encode_mask, write_samples
from enxerto.vision.specs import Split, Task

SHAPES = ("circle", "square", "triangle", "ring")
_COLOURS = ((220, 40, 40), (40, 80, 220), (40, 190, 60), (230, 190, 30))
_FORMATS = {
    Task.CLASSIFICATION: "IMAGE_FOLDER",
    Task.DETECTION: "COCO",
    Task.SEGMENTATION: "MASKS",
    Task.STYLE: "IMAGES",
}


@dataclass(frozen=True, slots=True)
class Scenes:
    """A data set in memory."""

    task: Task
    class_names: tuple[str, ...]
    samples: tuple[StoredSample, ...]


def snapshot_of(scenes: Scenes, folder: Path) -> tuple[Manifest, FolderBlobs]:
    """A snapshot of scenes, its blobs below `folder`."""
    return write_snapshot_of(scenes.samples, scenes.task, scenes.class_names, folder)


def write_snapshot_of(
    samples: Iterable[StoredSample], task: Task, class_names: tuple[str, ...], folder: Path
) -> tuple[Manifest, FolderBlobs]:
    """A snapshot of pictures and annotations, in any order, its blobs below `folder`."""
    known = sorted(samples, key=lambda sample: sample.path)
    blobs = FolderBlobs(folder / "blobs")
    manifest, _ = write_samples(
        lambda split: (sample for sample in known if sample.split is split),
        blobs,
        task=task,
        class_names=class_names,
        statistics=statistics_of(known, task, class_names),
    )
    return manifest, blobs


def statistics_of(samples: Iterable[StoredSample], task: Task, class_names: tuple[str, ...]) -> DatasetStatistics:
    """What an import would have counted."""

    def occurrences(sample: StoredSample) -> Occurrences:
        known = sample.annotation
        if known.label is not None:
            labels: tuple[int, ...] = (known.label,)
        elif known.mask is not None:
            with Image.open(io.BytesIO(known.mask)) as mask:
                labels = tuple(int(value) for value in np.unique(np.asarray(mask)) if value != 255)
        else:
            labels = tuple(box.label for box in known.boxes)
        count = 1 if known.mask is not None else len(labels)
        return Occurrences(sample.split, labels, count, max(sample.width, sample.height))

    return summarise(_FORMATS[task], class_names, (occurrences(sample) for sample in samples))


def classification_scenes(
    per_class: int = 8, classes: int = 3, *, side: int = 64, val: float = 0.25, test: float = 0.25, seed: int = 0
) -> Scenes:
    """One shape a picture; its label is the shape."""
    generator = np.random.default_rng(seed)
    names = tuple(sorted(SHAPES[:classes]))
    samples = []
    for label, name in enumerate(names):
        for number, split in enumerate(_splits(per_class, val, test)):
            picture = texture(generator, side, side)
            _place(ImageDraw.Draw(picture), generator, name, side, [])
            samples.append(_sample(f"{name}/{number:04d}.png", split, picture, Annotation(label=label)))
    return Scenes(Task.CLASSIFICATION, names, tuple(samples))


def detection_scenes(
    count: int = 16,
    classes: int = 2,
    *,
    side: int = 96,
    objects: int = 2,
    val: float = 0.25,
    test: float = 0.25,
    seed: int = 0,
) -> Scenes:
    """Up to `objects` shapes a picture, each with its box; the last picture of a split has none."""
    generator = np.random.default_rng(seed)
    names = SHAPES[:classes]
    splits = _splits(count, val, test)
    samples = []
    for number, split in enumerate(splits):
        picture = texture(generator, side, side)
        pen, taken = ImageDraw.Draw(picture), []
        background = number + 1 < count and splits[number + 1] is not split and splits.count(split) > 3
        boxes = []
        for position in range(0 if background else objects):
            label = (number + position) % classes
            box = _place(pen, generator, names[label], side, taken)
            if box is not None:
                boxes.append(Box(label, *box))
        samples.append(_sample(f"{number:04d}.png", split, picture, Annotation(boxes=tuple(boxes))))
    return Scenes(Task.DETECTION, names, tuple(samples))


def segmentation_scenes(
    count: int = 16, classes: int = 2, *, side: int = 64, val: float = 0.25, test: float = 0.25, seed: int = 0
) -> Scenes:
    """Two shapes a picture with a mask: 0 is the background, the upper left pixel is ignored (255)."""
    generator = np.random.default_rng(seed)
    shapes = SHAPES[:classes]
    samples = []
    for number, split in enumerate(_splits(count, val, test)):
        picture, mask = texture(generator, side, side), Image.new("L", (side, side), 0)
        taken: list[tuple[float, float, float, float]] = []
        for position in range(2):
            label = (number + position) % classes
            box = _find_place(generator, side, taken)
            if box is not None:
                draw_shape(ImageDraw.Draw(picture), shapes[label], box, _colour(generator, shapes[label]))
                draw_shape(ImageDraw.Draw(mask), shapes[label], box, label + 1)
        pixels = np.array(mask)
        pixels[0, 0] = 255
        samples.append(_sample(f"{number:04d}.png", split, picture, Annotation(mask=encode_mask(pixels))))
    return Scenes(Task.SEGMENTATION, ("background", *shapes), tuple(samples))


def style_scenes(count: int = 6, *, side: int = 64, val: float = 0.34, seed: int = 0) -> Scenes:
    """Content pictures (label 0) and the style picture (label 1, in TRAIN), which has stripes."""
    content = classification_scenes(count, 1, side=side, val=val, test=0, seed=seed).samples
    samples = [
        StoredSample(f"{number:04d}.png", one.split, one.width, one.height, one.data, Annotation(label=0))
        for number, one in enumerate(content)
    ]
    rows, columns = np.mgrid[:side, :side]
    wave = ((np.sin((rows + columns) / 3) + 1) * 127).astype(np.uint8)
    stripes = Image.fromarray(np.stack([wave, 255 - wave, wave // 2], axis=2))
    samples.append(_sample("style/stripes.png", Split.TRAIN, stripes, Annotation(label=1)))
    return Scenes(Task.STYLE, ("content", "style"), tuple(samples))


def texture(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """A noisy gradient in a muted colour."""
    colour = generator.integers(90, 170, 3)
    slope = generator.uniform(-0.4, 0.4, 2)
    rows, columns = np.mgrid[:height, :width]
    light = slope[0] * rows + slope[1] * columns
    pixels = colour[None, None] + light[:, :, None] + generator.normal(0, 12, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_shape(
    pen: ImageDraw.ImageDraw,
    shape: str,
    box: tuple[float, float, float, float],
    fill: tuple[int, int, int] | int,
) -> None:
    """One shape that fills a box; its right and lower edge are outside."""
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    if shape == "circle":
        pen.ellipse((left, top, right, bottom), fill=fill)
    elif shape == "square":
        pen.rectangle((left, top, right, bottom), fill=fill)
    elif shape == "triangle":
        pen.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=fill)
    else:
        pen.ellipse((left, top, right, bottom), outline=fill, width=max(2, int(right - left) // 5))


def _place(
    pen: ImageDraw.ImageDraw,
    generator: np.random.Generator,
    shape: str,
    side: int,
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    box = _find_place(generator, side, taken)
    if box is not None:
        draw_shape(pen, shape, box, _colour(generator, shape))
    return box


def _find_place(
    generator: np.random.Generator, side: int, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float] | None:
    """A box that touches no other, noted as taken; None when there is no room."""
    for _ in range(40):
        size = int(generator.integers(side // 4, side // 2))
        left, top = (int(value) for value in generator.integers(1, side - size - 1, 2))
        box = (float(left), float(top), float(left + size), float(top + size))
        if all(box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken):
            taken.append(box)
            return box
    return None


def _colour(generator: np.random.Generator, shape: str) -> tuple[int, int, int]:
    base = _COLOURS[SHAPES.index(shape)]
    red, green, blue = (int(np.clip(value + generator.integers(-20, 21), 0, 255)) for value in base)
    return red, green, blue


def _splits(count: int, val: float, test: float) -> list[Split]:
    tested, validated = round(count * test), round(count * val)
    return [Split.TRAIN] * (count - tested - validated) + [Split.VAL] * validated + [Split.TEST] * tested


def _sample(path: str, split: Split, picture: Image.Image, annotation: Annotation) -> StoredSample:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return StoredSample(path, split, picture.width, picture.height, buffer.getvalue(), annotation)
