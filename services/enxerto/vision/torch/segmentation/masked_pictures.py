"""The pictures and masks of a split as arrays: decoded once, one part for each worker."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from enxerto.kernel.errors import DataLossError
from enxerto.vision.blobs import BlobSource
from enxerto.vision.contracts import IGNORED
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.geometry import Placement
from enxerto.vision.images import DEFAULT_LIMITS, ImageLimits, UInt8Image, load_placed
from enxerto.vision.snapshots import Manifest, read_samples
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES, PixelFile, Pixels, allocate, decode_in_order

UInt8Mask = npt.NDArray[np.uint8]
"""(H, W), class indices; 255 is ignored."""


@dataclass(frozen=True, slots=True)
class MaskedPictures:
    """This worker's part of a split: every `world_size`-th sample.

    Attributes:
        images: (n, H, W, 3), uint8, RGB.
        masks: (n, H, W), uint8, class indices; 255 is ignored.
        indices: (n,), int64, positions in the whole split.
        total: samples of the whole split.
    """

    images: Pixels | PixelFile
    masks: Pixels | PixelFile
    indices: npt.NDArray[np.int64]
    total: int

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, rows: npt.NDArray[np.int64] | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 3, H, W) uint8 images and (n, H, W) uint8 masks of some rows."""
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows])).permute(0, 3, 1, 2)
        return images, torch.from_numpy(np.ascontiguousarray(self.masks[rows]))


def load_masked(
    manifest: Manifest,
    source: BlobSource,
    split: Split,
    spec: PreprocessSpec,
    *,
    rank: int = 0,
    world_size: int = 1,
    limits: ImageLimits = DEFAULT_LIMITS,
    memory_bytes: int = MEMORY_BYTES,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MaskedPictures:
    """Decode every `world_size`-th sample of a split, from `rank` on; `progress` is told (done, total).

    Above `memory_bytes` the pixels go to the local disk; later epochs never decode again.

    Raises:
        ImageError: a picture cannot be decoded.
        DataLossError: the snapshot is damaged, or a sample has no mask of its size.
    """
    total = manifest.count(split)
    mine = len(range(rank, total, world_size))
    images = allocate((mine, spec.height, spec.width, 3), memory_bytes)
    masks = allocate((mine, spec.height, spec.width), memory_bytes)
    part = islice(read_samples(manifest, source, split), rank, None, world_size)
    decoded = decode_in_order(part, partial(_decode, spec=spec, limits=limits), threads)
    for row, (image, mask) in enumerate(decoded):
        images[row : row + 1], masks[row : row + 1] = image, mask
        if progress is not None:
            progress(row + 1, mine)
    return MaskedPictures(images, masks, np.arange(rank, total, world_size, dtype=np.int64), total)


def decode_mask(sample: StoredSample) -> UInt8Mask:
    """(height, width) class indices of a sample, at the picture's size.

    Raises:
        DataLossError: the sample has no mask of its picture's size.
    """
    if sample.annotation.mask is None:
        raise DataLossError(f"{sample.path!r} has no mask")
    with Image.open(io.BytesIO(sample.annotation.mask), formats=("PNG",)) as image:
        mask = np.asarray(image)
    if mask.shape != (sample.height, sample.width) or mask.dtype != np.uint8:
        raise DataLossError(f"the mask of {sample.path!r} is {mask.dtype} {mask.shape}, not of its picture's size")
    return mask


def mask_to_input(mask: UInt8Mask, placed: Placement) -> UInt8Mask:
    """A mask in picture pixels to (input_height, input_width): the nearest pixel; 255 where there is no picture."""
    return _nearest(mask, placed.input_height, placed.input_width, placed, to_picture=False)


def mask_to_picture(mask: UInt8Mask, placed: Placement) -> UInt8Mask:
    """A mask in input pixels to (picture_height, picture_width): the nearest pixel; 255 where the input shows none."""
    return _nearest(mask, placed.picture_height, placed.picture_width, placed, to_picture=True)


def _nearest(mask: UInt8Mask, height: int, width: int, placed: Placement, *, to_picture: bool) -> UInt8Mask:
    """Each pixel's centre is moved to the other side of input = picture x scale + offset."""

    def source(
        size: int, scale: float, offset: float, limit: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        centres = np.arange(size) + 0.5
        moved = np.floor(centres * scale + offset if to_picture else (centres - offset) / scale).astype(np.int64)
        return np.clip(moved, 0, limit - 1), (moved >= 0) & (moved < limit)

    rows, rows_inside = source(height, placed.scale_y, placed.offset_y, mask.shape[0])
    columns, columns_inside = source(width, placed.scale_x, placed.offset_x, mask.shape[1])
    moved = mask[rows[:, None], columns[None, :]]
    moved[~rows_inside, :] = IGNORED
    moved[:, ~columns_inside] = IGNORED
    return moved


def _decode(sample: StoredSample, spec: PreprocessSpec, limits: ImageLimits) -> tuple[UInt8Image, UInt8Mask]:
    image, placed = load_placed(sample.data, spec, limits)
    return image, mask_to_input(decode_mask(sample), placed)
