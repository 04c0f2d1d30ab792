"""Heads, losses, sampling, decoded images, calibration, interpolation."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from enxerto.vision.blobs import FolderBlobs
from enxerto.vision.finetuning import AugmentationSpec, ClassWeights, HeadSpec, LossSpec, Sampling
from enxerto.vision.images import DEFAULT_LIMITS
from enxerto.vision.snapshots import Manifest
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.classification.augment import Augmentation, Mixing, seeded
from enxerto.vision.torch.classification.images import Source, canvas_spec, keep
from enxerto.vision.torch.classification.interpolation import Candidate, choose, mix
from enxerto.vision.torch.classification.learners import Sampler
from enxerto.vision.torch.classification.losses import make_loss
from enxerto.vision.torch.classification.network import ClassifierHead
from enxerto.vision.torch.classification.temperature import find_temperature
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.learner import Score
from enxerto.vision.torch.pixel_arrays import PixelFile
from fakes.datasets import classification_scenes, snapshot_of

SMALL = PreprocessSpec(32, 32, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Shapes = tuple[Manifest, FolderBlobs]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return snapshot_of(classification_scenes(12, 3, side=48), tmp_path_factory.mktemp("shapes"))


def _source(data: Shapes, rank: int = 0, world_size: int = 1) -> Source:
    where = Distribution()
    if world_size > 1:
        # Without a process group: only the arithmetic of the places is used.
        object.__setattr__(where, "rank", rank)
        object.__setattr__(where, "world_size", world_size)
    return Source(*data, where, DEFAULT_LIMITS, 2)


@pytest.mark.parametrize("spec", [HeadSpec(), HeadSpec(hidden_units=5, dropout=0.3)])
def test_the_folded_head_gives_the_same_logits(spec: HeadSpec) -> None:
    head = ClassifierHead(16, 4, spec).eval()
    torch.nn.init.normal_(head.linear.weight)
    features = torch.randn(50, 16) * 3 + 10
    head.calibrate(features)
    torch.testing.assert_close(head.folded()(features), head(features), rtol=1e-4, atol=1e-4)


def test_calibrated_features_are_centred_and_of_unit_size() -> None:
    head = ClassifierHead(8, 2)
    features = torch.randn(9000, 8) * 5 + 100
    head.calibrate(features)
    scaled = (features - head.mean) * head.scale
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scaled.pow(2).mean()) == pytest.approx(1, abs=1e-3)


def test_large_splits_live_in_a_file(shapes: Shapes) -> None:
    in_memory = keep(_source(shapes), Split.TRAIN, SMALL)
    in_file = keep(_source(shapes), Split.TRAIN, SMALL, memory_bytes=1000)
    rows = np.array([5, 0, 17])
    assert isinstance(in_file.pixels, PixelFile)
    assert torch.equal(in_file.batch(rows), in_memory.batch(rows))
    assert (in_file.labels == in_memory.labels).all()
    assert in_memory.batch(rows).shape == (3, 3, 32, 32)


def test_workers_share_a_split_without_overlap(shapes: Shapes) -> None:
    sources = [_source(shapes, rank, 5) for rank in range(5)]
    places = sorted(place for source in sources for place in source.indices(Split.TRAIN))
    assert places == list(range(shapes[0].count(Split.TRAIN)))
    parts = [keep(source, Split.TRAIN, SMALL) for source in sources]
    whole = keep(_source(shapes), Split.TRAIN, SMALL)
    assert torch.equal(parts[2].batch(np.array([1])), whole.batch(np.array([7])))
    assert sum(len(part) for part in parts) == len(whole) == parts[0].total


def test_canvases_are_the_square_that_the_centre_is_cut_from() -> None:
    assert (canvas_spec(SMALL).height, canvas_spec(SMALL).crop_fraction) == (37, 1.0)


def test_balanced_sampling_draws_every_class_as_often() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    sampler = Sampler(labels, Sampling.BALANCED, seed=3)
    drawn = np.bincount(labels[sampler.order(1)], minlength=3) / len(labels)
    assert drawn == pytest.approx([1 / 3] * 3, abs=0.05)
    assert (sampler.order(1) == sampler.order(1)).all()
    assert not (sampler.order(1) == sampler.order(2)).all()
    assert sorted(Sampler(labels, Sampling.SHUFFLED, seed=3).order(1)) == list(range(1000))


def test_losses_are_torchs_where_torch_has_them() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1])
    counts = torch.tensor([6, 3, 0])
    plain = make_loss(LossSpec(label_smoothing=0.1), counts)(logits, labels)
    torch.testing.assert_close(plain, functional.cross_entropy(logits, labels, label_smoothing=0.1))
    balanced = make_loss(LossSpec(class_weights=ClassWeights.BALANCED), counts)(logits[:2], labels[:2])
    weights = torch.tensor([9 / 12, 9 / 6, 4.5])
    torch.testing.assert_close(balanced, functional.cross_entropy(logits[:2], labels[:2], weights))


def test_the_focal_loss_forgives_what_is_easy() -> None:
    counts, labels = torch.tensor([1, 1]), torch.tensor([0])
    focal, plain = make_loss(LossSpec(focal_gamma=2.0), counts), make_loss(LossSpec(), counts)
    for logits in (torch.tensor([[3.0, 0.0]]), torch.tensor([[-3.0, 0.0]])):
        probability = logits.softmax(1)[0, 0]
        expected = plain(logits, labels) * (1 - probability) ** 2
        torch.testing.assert_close(focal(logits, labels), expected)
        shares = torch.tensor([[1.0, 0.0]])
        torch.testing.assert_close(focal(logits, shares), expected)


def test_mixed_labels_are_shares() -> None:
    mixing = Mixing(AugmentationSpec(mixup_alpha=1.0, cutmix_alpha=1.0), 4)
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])
    mixed, shares = mixing(images, labels, 1, 2)
    again, _ = mixing(images, labels, 1, 2)
    assert torch.equal(mixed, again)
    assert mixed.shape == images.shape
    torch.testing.assert_close(shares.sum(1), torch.ones(6))
    assert not Mixing(AugmentationSpec(), 4)


def test_augmentation_is_decided_by_its_key() -> None:
    from enxerto.vision.finetuning import AugmentPolicy

    canvases = torch.randint(0, 255, (4, 3, 40, 40), dtype=torch.uint8)
    for policy in (AugmentPolicy.LIGHT, AugmentPolicy.RANDAUGMENT):
        augment = Augmentation(AugmentationSpec(policy=policy), SMALL)
        first, other = augment(canvases, 1, 2), augment(canvases, 1, 3)
        assert first.shape == (4, 3, 32, 32)
        assert first.dtype == torch.uint8
        assert torch.equal(first, augment(canvases, 1, 2))
        assert not torch.equal(first, other)


def test_draws_inside_change_none_outside() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded(5):
        torch.rand(10)
    assert torch.equal(torch.rand(3), expected)


def test_temperature_finds_what_the_logits_were_multiplied_by() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    assert find_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)
    assert find_temperature(logits, labels) == pytest.approx(1, rel=0.1)


def test_temperature_is_careful_with_few_images() -> None:
    logits = torch.eye(4) * 4
    found = find_temperature(logits, torch.arange(4))
    assert 0.2 < found < 1
    worse = functional.cross_entropy(logits, torch.arange(4))
    assert functional.cross_entropy(logits / found, torch.arange(4)) < worse
    assert find_temperature(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)) == 1.0


def test_points_between_are_on_the_line() -> None:
    start, tuned = {"w": torch.zeros(2), "n": torch.tensor(1)}, {"w": torch.ones(2), "n": torch.tensor(3)}
    between = mix(start, tuned, 0.25)
    assert torch.equal(between["w"], torch.full((2,), 0.25))
    assert between["n"] == 3


def test_the_probe_is_kept_unless_tuning_gave_two_more_right_answers() -> None:
    probe = Candidate(0.0, Score(0.8, 0.5))
    assert choose((probe, Candidate(0.5, Score(0.7, 0.1)), Candidate(1.0, Score(1.0, math.nan))), 10).share == 0.0
    assert choose((probe, Candidate(1.0, Score(0.9, 0.1))), 10).share == 0.0
    assert choose((probe, Candidate(1.0, Score(0.9, 0.9))), 20).share == 1.0


def test_the_middle_is_chosen_unless_many_images_speak_against_it() -> None:
    scores = ((0.0, 0.3), (0.5, 0.5), (1.0, 0.6))
    candidates = [Candidate(share, Score(value, 0.1)) for share, value in scores]
    assert [choose(candidates, images).share for images in (10, 1000)] == [0.5, 1.0]
