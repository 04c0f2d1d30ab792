"""Masks drawn from polygons, run lengths and image files, each time that they are needed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask  # type: ignore[import-untyped, unused-ignore]

from enxerto.vision.datasets.scans import Mask, MaskError, MaskSource

IGNORED: Final = 255
"""Value of pixels that are neither trained on nor counted."""

_MAX_MASK_BYTES: Final = 64 * 1024 * 1024
_MAX_PIXELS: Final = 50_000_000
_BINARY_THRESHOLD: Final = 128
_MAX_OUTLINE: Final = 1_000_000
"""Pixels along the polygons of one object. COCO's rasteriser takes 80 bytes for each, and ends the process without."""
_MAX_RUN_BITS: Final = 60


@dataclass(frozen=True, slots=True)
class Region:
    """One object's pixels.

    Attributes:
        label: value that its pixels get.
        polygons: rings of x, y, x, y, ... as float64; pixels, or parts of the size when `relative`.
        counts: COCO's run lengths, column by column, beginning with background; None with polygons.
        size: (height, width) that the run lengths are of.
        relative: whether the polygons are parts of the picture's size.
    """

    label: int
    polygons: tuple[npt.NDArray[np.float64], ...] = ()
    counts: tuple[int, ...] | bytes | None = None
    size: tuple[int, int] = (0, 0)
    relative: bool = False

    def pixels(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """(H, W) where the object is; raises MaskError."""
        if self.counts is not None:
            if self.size != (height, width):
                message = (
                    f"has run lengths of {self.size[1]} x {self.size[0]} pixels, the picture is {width} x {height}"
                )
                raise MaskError("MASK_SIZE", message)
            runs = _uncompressed(self.counts) if isinstance(self.counts, bytes) else self.counts
            return _drawn(runs, width, height)
        drawn = []
        for ring in self.polygons:
            points = ring.copy()
            if self.relative:
                points[0::2] *= width
                points[1::2] *= height
            if not np.isfinite(points).all():
                raise MaskError("POLYGON_NOT_FINITE", "a polygon has coordinates that are not finite")
            # Far outside of the picture the rasteriser would count for ever, and draws nothing.
            drawn.append(np.clip(points, -1e5, 1e5))
        if sum(map(_length, drawn)) > _MAX_OUTLINE:
            raise MaskError("MALFORMED_MASK", f"has a polygon whose outline is longer than {_MAX_OUTLINE} pixels")
        rasters = coco_mask.frPyObjects([ring.tolist() for ring in drawn], height, width)
        return _drawn(_uncompressed(coco_mask.merge(rasters)["counts"]), width, height)


def area_of(ring: npt.NDArray[np.float64]) -> float:
    """Inside of a ring x, y, x, y, ..., in its own units squared."""
    x, y = ring[0::2], ring[1::2]
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _length(ring: npt.NDArray[np.float64]) -> float:
    """Pixels along a closed ring, as the rasteriser counts them."""
    points = ring.reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _uncompressed(counts: bytes) -> list[int]:
    """COCO's text of run lengths: six bits a letter, each run after the third as a difference to the last but one.

    The library's own decoder writes wherever broken runs lead it, and warns under NumPy 2.

    Raises:
        MaskError: it ends within a number, or has letters that are none.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = letter - 48
        if not 0 <= bits < 64:
            raise MaskError("MALFORMED_MASK", "has run lengths with letters that COCO's text does not have")
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > _MAX_RUN_BITS:
            raise MaskError("MALFORMED_MASK", "has a run length that no picture has")
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise MaskError("MALFORMED_MASK", "has run lengths that end too early")
    return runs


def _drawn(runs: Sequence[int], width: int, height: int) -> npt.NDArray[np.bool_]:
    if min(runs, default=0) < 0 or sum(runs) != width * height:
        raise MaskError("MALFORMED_MASK", "has run lengths that do not add up to the picture's pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


@dataclass(frozen=True, slots=True)
class FileMask:
    """A mask in an image file of indices, palette or colours.

    Attributes:
        root: folder of the data set.
        path: relative to it.
        classes: how many there are; None when the values themselves tell.
        colours: (red, green, blue) to class, for masks painted in colours.
        binary: whether the file is black and white: white is class 1.
    """

    root: Path
    path: str
    classes: int | None
    colours: Mapping[tuple[int, int, int], int]
    binary: bool = False

    def render(self, width: int, height: int) -> Mask:
        """The mask of a picture of this size; raises MaskError."""
        values = read_values(self.root / self.path)
        if values.shape[:2] != (height, width):
            found = f"{values.shape[1]} x {values.shape[0]}"
            raise MaskError("MASK_SIZE", f"is {found} pixels, its picture is {width} x {height}")
        if values.ndim == 3:
            return self._from_colours(values)
        if self.binary:
            return (values >= _BINARY_THRESHOLD).astype(np.uint8)
        self._check(values)
        return values.astype(np.uint8)

    def _check(self, values: npt.NDArray[np.int64]) -> None:
        found = np.unique(values)
        most = IGNORED if self.classes is None else self.classes
        unknown = [int(value) for value in found if value != IGNORED and not 0 <= value < most]
        if unknown:
            raise MaskError("MASK_VALUE", f"has values without a class: {', '.join(map(str, unknown[:10]))}")

    def _from_colours(self, values: npt.NDArray[np.int64]) -> Mask:
        if not self.colours:
            message = "is painted in colours and no file says which class each is (labelmap.txt or class_dict.csv)"
            raise MaskError("MASK_COLOURS", message)
        packed = values[..., 0] << 16 | values[..., 1] << 8 | values[..., 2]
        mask = np.full(packed.shape, IGNORED, dtype=np.uint8)
        known = {red << 16 | green << 8 | blue: label for (red, green, blue), label in self.colours.items()}
        for colour in np.unique(packed):
            if int(colour) not in known:
                raise MaskError("MASK_VALUE", f"has the colour #{int(colour):06x}, which has no class")
            mask[packed == colour] = known[int(colour)]
        return mask


@dataclass(frozen=True, slots=True)
class RenumberedMask:
    """A mask whose values are no class indices.

    Attributes:
        source: draws the values.
        values: of the classes, in the order of these; other pixels are ignored.
    """

    source: MaskSource
    values: tuple[int, ...]

    @property
    def path(self) -> str:
        """File that says it, relative to the root, for findings."""
        return self.source.path

    def render(self, width: int, height: int) -> Mask:
        """The mask of a picture of this size; raises MaskError."""
        labels = np.full(IGNORED + 1, IGNORED, dtype=np.uint8)
        labels[list(self.values)] = np.arange(len(self.values))
        mask: Mask = labels[self.source.render(width, height)]
        return mask


def read_values(file: Path) -> npt.NDArray[np.int64]:
    """(H, W) values of an index, palette or grey image; (H, W, 3) of one in colours.

    Raises:
        MaskError: it cannot be read.
    """
    try:
        data = file.read_bytes() if file.stat().st_size <= _MAX_MASK_BYTES else b""
        with Image.open(io.BytesIO(data), formats=("PNG", "BMP")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise MaskError("IMAGE_TOO_LARGE", f"declares {image.width} x {image.height} pixels")
            if image.mode in ("RGB", "RGBA"):
                colours = np.asarray(image.convert("RGB"), dtype=np.int64)
                grey = (colours[..., 0] == colours[..., 1]) & (colours[..., 1] == colours[..., 2])
                return colours[..., 0] if grey.all() else colours
            pixels = np.asarray(image)
    except Image.DecompressionBombError as error:
        raise MaskError("IMAGE_TOO_LARGE", "declares far more pixels than a picture may have") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, MaskError):
            raise
        raise MaskError("CORRUPT_MASK", f"is not a readable PNG: {error}") from error
    values = pixels if pixels.ndim == 2 else pixels[..., 0]
    return values.astype(np.int64)
