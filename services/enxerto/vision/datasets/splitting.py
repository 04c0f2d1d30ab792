"""Training, validation and test parts: given ones are kept, missing ones are carved out of training."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from enxerto.vision.datasets.scans import Sample
from enxerto.vision.specs import Split


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """Part of each class that goes to each split; training gets the rest."""

    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise ValueError("val must be in (0, 1), test in [0, 1), and both together below 1")


@dataclass(frozen=True, slots=True)
class Member:
    """One sample with what decides its split.

    Attributes:
        sample: as examined.
        given: split that the format gave, or None.
        group: samples of one number are the same picture, or nearly.
        pinned: stays in training.
    """

    sample: Sample
    given: Split | None
    group: int
    pinned: bool = False


def assign_splits(members: Sequence[Member], fractions: SplitFractions, seed: int) -> list[Split]:
    """The split of each member, in order.

    Stratified by class, and by the rarest class of pictures with several; copies of one picture stay together, so that
    none is both trained on and evaluated. The same pictures and seed always give the same splits, wherever they lie.
    """
    given = {member.given for member in members}
    wanted = {Split.VAL: fractions.val, Split.TEST: fractions.test}
    carved = [split for split in (Split.VAL, Split.TEST) if split not in given and wanted[split] > 0]
    groups: dict[int, list[Member]] = defaultdict(list)
    pinned = {member.group for member in members if member.pinned}
    for member in members:
        if member.given in (None, Split.TRAIN) and member.group not in pinned:
            groups[member.group].append(member)
    moved: dict[int, Split] = {}
    strata = _strata(list(groups.values()))
    for stratum in strata:
        order = sorted(stratum, key=lambda one: _draw(one, seed))
        start = 0
        for split in carved:
            left = len(order) - start
            # Training always keeps one picture; validation comes before test when there are too few for both.
            share = max(0, min(max(1, round(wanted[split] * len(order))), left - 1))
            moved.update({one[0].group: split for one in order[start : start + share]})
            start += share
    if Split.VAL in carved and Split.VAL not in moved.values() and len(groups) > 1:
        # Every class has one picture: something must be left to choose the epoch by.
        first = min(groups.values(), key=lambda one: _draw(one, seed))
        moved[first[0].group] = Split.VAL
    return [
        moved.get(member.group, Split.TRAIN) if member.given in (None, Split.TRAIN) else member.given
        for member in members
    ]


def _strata(groups: list[list[Member]]) -> list[list[list[Member]]]:
    """Groups by the rarest class in them; pictures without any class are one stratum."""
    frequency = Counter(label for one in groups for member in one for label in set(member.sample.labels))
    strata: dict[int, list[list[Member]]] = defaultdict(list)
    for one in groups:
        labels = {label for member in one for label in member.sample.labels}
        strata[min(labels, key=lambda label: (frequency[label], label), default=-1)].append(one)
    return [strata[label] for label in sorted(strata)]


def _draw(one: list[Member], seed: int) -> bytes:
    digest = min(member.sample.sha256 for member in one)
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()
