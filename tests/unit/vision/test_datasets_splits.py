"""Whatever the data, a split keeps copies together, keeps what is given, and gives every class to training."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest

from enxerto.vision.datasets.samples import Box
from enxerto.vision.datasets.scans import Sample
from enxerto.vision.datasets.splitting import Member, SplitFractions, assign_splits
from enxerto.vision.specs import Split


def member(number: int, labels: tuple[int, ...], given: Split | None = None, group: int | None = None) -> Member:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    boxes = tuple(Box(label, 0, 0, 1, 1) for label in labels)
    sample = Sample(f"{number}.png", Split.TRAIN, digest, 8, 8, 100, boxes=boxes)
    return Member(sample, given, number if group is None else group)


def random_members(generator: np.random.Generator) -> list[Member]:
    count, classes = int(generator.integers(2, 120)), int(generator.integers(1, 6))
    weights = generator.dirichlet(np.full(classes, 0.5))
    some = [None, Split.TRAIN] if generator.random() < 0.5 else [None]
    members = []
    for number in range(count):
        labels = tuple(int(one) for one in generator.choice(classes, size=generator.integers(0, 4), p=weights))
        group = int(generator.integers(0, number + 1)) if generator.random() < 0.2 else number
        members.append(member(number, labels, some[int(generator.integers(len(some)))], group))
    return members


@pytest.mark.parametrize("seed", range(40))
def test_any_data(seed: int) -> None:
    generator = np.random.default_rng(seed)
    members = random_members(generator)
    splits = assign_splits(members, SplitFractions(), seed)
    together = defaultdict(set)
    for one, split in zip(members, splits, strict=True):
        together[one.group].add(split)
    assert all(len(found) == 1 for found in together.values())
    assert Split.TRAIN in splits
    if len(together) > 1:
        assert Split.VAL in splits
    order = generator.permutation(len(members))
    again = assign_splits([members[position] for position in order], SplitFractions(), seed)
    assert again == [splits[position] for position in order]


def test_each_class_is_split_in_proportion() -> None:
    members = [member(number, (number % 2 if number < 90 else 2,)) for number in range(100)]
    splits = assign_splits(members, SplitFractions(0.2, 0.1), 3)
    counts = Counter((one.sample.labels[0], split) for one, split in zip(members, splits, strict=True))
    assert [counts[0, split] for split in Split] == [32, 9, 4]
    assert [counts[2, split] for split in Split] == [7, 2, 1]


def test_what_is_given_stays() -> None:
    given = [Split.TRAIN] * 20 + [Split.TEST] * 5
    members = [member(number, (0,), split) for number, split in enumerate(given)]
    splits = assign_splits(members, SplitFractions(), 0)
    assert splits[20:] == [Split.TEST] * 5
    assert Counter(splits[:20]) == {Split.TRAIN: 17, Split.VAL: 3}


def test_classes_of_one_picture_leave_one_to_choose_by() -> None:
    splits = assign_splits([member(number, (number,)) for number in range(5)], SplitFractions(), 0)
    assert Counter(splits) == {Split.TRAIN: 4, Split.VAL: 1}
