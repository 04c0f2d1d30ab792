"""Which samples a worker sees in which batch of an epoch: the same for the same seed, whatever came before."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from enxerto.vision.torch.collectives import Distribution


def batch_count(total: int, size: int, where: Distribution) -> int:
    """Batches of an epoch over all workers' `total` samples; by the longest part, so that none waits for another."""
    return math.ceil(math.ceil(total / where.world_size) / size)


def full_batches(mine: int, count: int, size: int, key: tuple[int, ...]) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """`count` batches of exactly `size` of this worker's `mine` samples, shuffled: their rows, and a seed for each.

    The last batch is filled up from the epoch's first samples. The key (run's seed, epoch, rank) decides all draws.
    """
    order = np.random.default_rng(key).permutation(mine)
    order = np.resize(order, count * size)
    for step, start in enumerate(range(0, len(order), size)):
        drawn = np.random.SeedSequence((*key, step))
        yield order[start : start + size], int(drawn.generate_state(1)[0])
