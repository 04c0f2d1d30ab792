"""The quickstart's images: scikit-learn's scanned digits as files, and some of each class kept out of training."""

import shutil
from dataclasses import dataclass
from pathlib import Path

_HELD_OUT_PER_CLASS = 1
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


def write_digits(target: Path, per_class: int = 70) -> Sample:
    """Write some of the 1,797 scans of the UCI handwritten digits that come with scikit-learn.

    Each is 8×8 pixels in 17 shades of grey; written as PNG of 8 times the size, so that a person sees them too.

    Args:
        target: folder to write to; what it holds is replaced.
        per_class: images of each digit to learn from; there are at least 174 of each.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    shutil.rmtree(target, ignore_errors=True)
    held_out: list[tuple[Path, str]] = []
    for digit in range(10):
        positions = np.flatnonzero(digits.target == digit)
        for count, position in enumerate(positions[: per_class + _HELD_OUT_PER_CLASS]):
            kept = count < _HELD_OUT_PER_CLASS
            path = target / ("held-out" if kept else "images") / str(digit) / f"{position:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[position] * (255 / 16)).round().astype(np.uint8)
            Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path)
            if kept:
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
