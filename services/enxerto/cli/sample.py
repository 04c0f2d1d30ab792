"""The quickstart's images: scikit-learn's scanned digits as files, and some of each class kept out of training."""

import itertools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

QUICKSTART_SPLITS = {"train": 40, "val": 5, "test": 30}
"""Images of each digit; many to measure with, so that the difference that pretrained weights make is not luck."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


class SampleError(ValueError):
    """A folder that nothing can be learnt from."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Images to learn from, and images to ask about afterwards."""

    name: str
    """Name of the dataset, the model and the deployment."""
    folder: Path
    """Class folders."""
    held_out: tuple[tuple[Path, str], ...]
    """Images that are not in `folder`, and their classes."""


def write_digits(target: Path, splits: Mapping[str, int] = QUICKSTART_SPLITS) -> Sample:
    """Write some of the 1,797 scans of the UCI handwritten digits that come with scikit-learn.

    Each is 8×8 pixels in 17 shades of grey, here as dark ink on white paper with a margin, large enough for people.

    Args:
        target: folder to write to; what it holds is replaced.
        splits: images of each digit in `train`, `val` and `test`; one more of each is held out. There are 174 or more.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Neighbours in the file come from the same writer: shuffled, every split has all writers.
    order = np.random.default_rng(0).permutation(len(digits.target))
    shutil.rmtree(target, ignore_errors=True)
    held_out: list[tuple[Path, str]] = []
    for digit in range(10):
        positions = iter(order[digits.target[order] == digit])
        for split, count in {"held-out": 1, **splits}.items():
            folder = target / split if split == "held-out" else target / "images" / split
            for position in itertools.islice(positions, count):
                path = folder / str(digit) / f"{position:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = 255 - (digits.images[position] * (255 / 16)).round().astype(np.uint8)
                paper = Image.fromarray(np.pad(pixels, 2, constant_values=255))
                paper.resize((96, 96), Image.Resampling.BICUBIC).save(path)
                if split == "held-out":
                    held_out.append((path, str(digit)))
    return Sample("digits", target / "images", tuple(held_out))


def split_folder(source: Path, target: Path, name: str) -> Sample:
    """Link a person's class folders into `target`, all but the last image of each class.

    The person's own folder is only read. A class of fewer than three images gives all of them to training.

    Raises:
        SampleError: there are fewer than two class folders.
    """
    classes = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    if len(classes) < 2:
        raise SampleError(f"{source} must be a folder of at least two class folders with images in them")
    shutil.rmtree(target, ignore_errors=True)
    held_out: list[tuple[Path, str]] = []
    for class_folder in classes:
        images = sorted(path for path in class_folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if len(images) >= 3:
            held_out.append((images.pop().absolute(), class_folder.name))
        folder = target / "images" / class_folder.name
        folder.mkdir(parents=True)
        # Files that are no images go along: the import reports them, instead of leaving them out silently.
        others = [path for path in class_folder.rglob("*") if path.is_file() and path.suffix.lower() not in _SUFFIXES]
        for path in (*images, *others):
            link = folder / path.relative_to(class_folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    return Sample(name, target / "images", tuple(held_out))
