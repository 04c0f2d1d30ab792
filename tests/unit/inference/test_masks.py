"""Masks as run lengths and as outlines, held against COCO's own code and against counting."""

import numpy as np
import pytest
from pycocotools import mask as coco

from enxerto.inference.domain import Outline
from enxerto.inference.replica.outlines import outlines
from enxerto.inference.replica.run_lengths import run_lengths

SEEDS = range(40)


def random_mask(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 40, 2)
    return random.random((height, width)) < random.choice([0.02, 0.3, 0.5, 0.9])


def area(outline: Outline) -> float:
    x, y = np.array(outline.points).reshape(-1, 2).T
    size = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return -size if outline.hole else size


@pytest.mark.parametrize("seed", SEEDS)
def test_run_lengths_are_those_of_coco(seed: int) -> None:
    mask = random_mask(seed)
    assert run_lengths(mask) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize("mask", [np.zeros((3, 5), bool), np.ones((3, 5), bool), np.ones((3000, 2000), bool)])
def test_run_lengths_of_one_run(mask: np.ndarray) -> None:
    assert run_lengths(mask) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@pytest.mark.parametrize("seed", SEEDS)
def test_outlines_enclose_exactly_the_pixels(seed: int) -> None:
    mask = random_mask(seed)
    found = outlines(mask)
    assert sum(map(area, found)) == mask.sum()
    for outline in found:
        x, y = np.array(outline.points).reshape(-1, 2).T
        steps = np.stack([np.roll(x, -1) - x, np.roll(y, -1) - y], axis=1)
        # Level and upright edges take turns, so no corner is one in name only.
        assert ((steps != 0).sum(axis=1) == 1).all()


def test_a_ring_has_a_hole_and_what_touches_at_a_corner_is_apart() -> None:
    ring = np.pad(np.pad(np.zeros((2, 2), bool), 1, constant_values=True), 3)
    outer, hole = outlines(ring)
    assert (outer.points.tolist(), outer.hole) == ([3, 3, 7, 3, 7, 7, 3, 7], False)
    assert hole.hole
    assert sorted(zip(hole.points[::2], hole.points[1::2], strict=True)) == [(4, 4), (4, 6), (6, 4), (6, 6)]
    assert [area(one) for one in outlines(np.eye(3, dtype=bool))] == [1, 1, 1]
    assert [area(one) for one in outlines(np.eye(3, dtype=bool)[::-1])] == [1, 1, 1]
    assert outlines(np.zeros((4, 4), bool)) == ()
