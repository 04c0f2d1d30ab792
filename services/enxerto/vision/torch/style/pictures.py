"""The style picture and the content pictures of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.blobs import BlobSource
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.images import DEFAULT_LIMITS, ImageLimits, UInt8Image, load
from enxerto.vision.snapshots import Manifest, read_samples
from enxerto.vision.specs import FIT_MULTIPLE, PreprocessSpec, Resize, Split
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES, PixelFile, Pixels, allocate, decode_in_order

_STYLE_LABEL: Final = 1
_TRAINING_SIDE: Final = 256
"""Johnson et al. 2016 trained on squares of this side."""


@dataclass(frozen=True, slots=True)
class ContentPictures:
    """This worker's part of a split's content pictures, as squares.

    Attributes:
        images: (n, side, side, 3), uint8, RGB.
        total: content pictures of the whole split.
    """

    images: Pixels | PixelFile
    total: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def side(self) -> int:
        """Of the squares, pixels."""
        return int(self.images.shape[1])

    def batch(self, rows: npt.NDArray[np.int64] | slice) -> torch.Tensor:
        """(n, 3, side, side), uint8, of some rows."""
        return torch.from_numpy(np.ascontiguousarray(self.images[rows])).permute(0, 3, 1, 2)


def training_square(preprocess: PreprocessSpec) -> PreprocessSpec:
    """The centre of a picture, for training: a square that fits into the largest input, of at most 256 pixels."""
    side = min(_TRAINING_SIDE, preprocess.height, preprocess.width) // FIT_MULTIPLE * FIT_MULTIPLE
    return replace(preprocess, height=side, width=side, crop_fraction=1.0, resize=Resize.CENTER_CROP)


def load_style(manifest: Manifest, source: BlobSource, spec: PreprocessSpec, limits: ImageLimits) -> UInt8Image:
    """(H, W, 3) the one style picture.

    Raises:
        InvalidArgumentError: there is none, or more than one.
    """
    found = [sample for split in Split for sample in read_samples(manifest, source, split) if is_style(sample)]
    if len(found) != 1:
        raise InvalidArgumentError([Violation("dataset", f"needs one style picture, there are {len(found)}")])
    return load(found[0].data, spec, limits)


def is_style(sample: StoredSample) -> bool:
    """Whether it is the style picture."""
    return sample.annotation.label == _STYLE_LABEL


def read_contents(manifest: Manifest, source: BlobSource, split: Split) -> Iterator[StoredSample]:
    """The content pictures of a split, in order of path."""
    return (sample for sample in read_samples(manifest, source, split) if not is_style(sample))


def count_contents(manifest: Manifest, source: BlobSource, split: Split) -> int:
    """How many content pictures a split has."""
    return sum(1 for _ in read_contents(manifest, source, split))


def load_contents(
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
) -> ContentPictures:
    """Decode every `world_size`-th content picture of a split, from `rank` on.

    Raises:
        ImageError: a picture cannot be decoded.
        DataLossError: the snapshot is damaged.
    """
    total = count_contents(manifest, source, split)
    images = allocate((len(range(rank, total, world_size)), spec.height, spec.width, 3), memory_bytes)
    part = islice(read_contents(manifest, source, split), rank, None, world_size)
    for row, image in enumerate(decode_in_order((one.data for one in part), partial(_load, spec, limits), threads)):
        images[row : row + 1] = image
    return ContentPictures(images, total)


def to_tensor(image: UInt8Image) -> torch.Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255


def to_image(picture: torch.Tensor) -> UInt8Image:
    """(3, H, W) in [0, 1] to (H, W, 3) uint8."""
    pixels = picture.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    image: UInt8Image = pixels.permute(1, 2, 0).contiguous().numpy()
    return image


def _load(spec: PreprocessSpec, limits: ImageLimits, data: bytes) -> UInt8Image:
    return load(data, spec, limits)
