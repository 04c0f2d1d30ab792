"""A few training images for quantisation and parity."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.images import Float32Images, ImageLimits, load, to_batch
from enxerto.vision.specs import PreprocessSpec


def draw_images(
    samples: Iterable[StoredSample],
    total: int,
    count: int,
    preprocess: PreprocessSpec,
    limits: ImageLimits,
    *,
    seed: int,
) -> Float32Images:
    """(n, 3, H, W) float32 images in [0, 1], at most `count` of the `total` samples, drawn with the seed.

    Raises:
        ImageError: one of them cannot be decoded.
    """
    wanted = {int(row) for row in np.random.default_rng(seed).permutation(total)[:count]}
    images = [load(one.data, preprocess, limits) for row, one in enumerate(samples) if row in wanted]
    return to_batch(images) if images else np.empty((0, 3, preprocess.height, preprocess.width), np.float32)
