"""COCO's compressed run lengths of a mask."""

import numpy as np
import numpy.typing as npt

_OFFSET = 48
_BITS = 5
_CONTINUES = 0x20


def run_lengths(mask: npt.NDArray[np.bool_]) -> str:
    """Compress a (height, width) mask as `maskApi.c` of cocoapi does (`rleToString`).

    The runs go down each column in turn and begin with the zeros. From the fourth on a run is written as its difference
    to the one before the last, in groups of five bits, lowest first, each with a bit that says whether more follow.
    """
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff(np.concatenate([[0], starts, [mask.size]]))
    differences = runs.copy()
    differences[3:] -= runs[1:-2]
    return bytes(_characters(differences)).decode("ascii")


def _characters(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The groups of all numbers in order; as many rounds as the longest number has groups."""
    left = numbers.astype(np.int64)
    owners, rounds, groups = [], [], []
    owner = np.arange(len(left))
    for turn in range(13):
        group = left & 0x1F
        left = left >> _BITS
        # The last group's highest bit is the sign.
        more = np.where(group & 0x10, left != -1, left != 0)
        owners.append(owner)
        rounds.append(np.full(len(owner), turn))
        groups.append(group | np.where(more, _CONTINUES, 0))
        left, owner = left[more], owner[more]
        if not len(left):
            break
    order = np.lexsort((np.concatenate(rounds), np.concatenate(owners)))
    return (np.concatenate(groups)[order] + _OFFSET).astype(np.uint8)
