"""The outlines of a mask along the edges of its pixels, so that they enclose exactly its pixels.

Contours through pixel centres, as OpenCV draws them, lose half a pixel on every side, and isolines cut every corner.
An outline of pixel edges turns only at corners, of which each row and each column of the grid has an even number: the
edges between them are found by sorting alone (the pairing of O'Rourke, "Uniqueness of orthogonal connect-the-dots",
1988), and what is left to follow is one step a corner.
"""

import numpy as np
import numpy.typing as npt

from enxerto.inference.domain import Outline

_Corners = npt.NDArray[np.int64]


def outlines(mask: npt.NDArray[np.bool_]) -> tuple[Outline, ...]:
    """Closed polygons around the pixels of a (height, width) mask, and around its holes, in pixels of the mask.

    Pixels that touch at a corner only belong to different polygons.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return ()
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    y, x, rising = _corners(padded)
    across, down = _partners(y, x, rising)
    inside = padded[y + 1, x + 1]
    # Corner (y, x) of the padded mask's inner grid lies between its pixels y and y + 1.
    points = np.stack([x + left, y + top], axis=1).astype(np.float64).tolist()
    found = []
    seen = bytearray(len(y))
    for start in range(len(y)):
        if seen[start]:
            continue
        chain: list[float] = []
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            chain += points[corner]
            corner = across[corner]
            seen[corner] = 1
            chain += points[corner]
            corner = down[corner]
        # The first corner of a ring in reading order has the ring's inner side to its lower right.
        found.append(Outline.of(chain, not inside[start]))
    return tuple(found)


def _corners(padded: npt.NDArray[np.bool_]) -> tuple[_Corners, _Corners, npt.NDArray[np.bool_]]:
    """Where outlines turn, in reading order; a corner that two pixels touch across counts twice.

    Returns: row and column of each, and whether it is a twofold one whose pixels lie at the lower left and upper right.
    """
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    twofold = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    y, x = np.nonzero(odd | twofold)
    copies = np.where(twofold[y, x], 2, 1)
    rising = np.repeat(twofold[y, x] & upper_right[y, x], copies)
    return np.repeat(y, copies), np.repeat(x, copies), rising


def _partners(y: _Corners, x: _Corners, rising: npt.NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """The corner at the other end of each corner's horizontal edge, and of its vertical one.

    Of a twofold corner the first copy ends the edge from the left and the second begins the one to the right. The first
    goes on upwards, except where the pixels lie at the lower left and upper right.
    """
    index = np.arange(len(y))
    first = np.concatenate([[True], (y[1:] != y[:-1]) | (x[1:] != x[:-1])])
    upward = np.where(rising, ~first, first)
    by_column = np.lexsort((~upward, y, x))
    return _pairs(index), _pairs(by_column)


def _pairs(order: _Corners) -> list[int]:
    partner = np.empty_like(order)
    partner[order[0::2]] = order[1::2]
    partner[order[1::2]] = order[0::2]
    return [int(corner) for corner in partner]
