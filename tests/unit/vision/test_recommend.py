"""Base models are probed on a few images and ranked by accuracy and cost."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.snapshots import FolderBlobs, Manifest, read_samples
from enxerto.vision.specs import Split
from enxerto.vision.subsets import write_subset
from enxerto.vision.torch.base_models import get_base_model
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.recommend import Probing, RankedModel, knn_accuracy, probe_accuracy, rank, recommend
from enxerto.vision.torch.weights import WeightsSources

Digits = tuple[Manifest, FolderBlobs]


def test_base_models_are_probed_and_those_without_weights_are_skipped(digits: Digits, tmp_path: Path) -> None:
    manifest, blobs = digits
    torch.manual_seed(0)
    save_file(get_base_model("timm_test_resnet").construct().state_dict(), tmp_path / "timm_test_resnet.safetensors")
    sources = WeightsSources(download=False, folder=tmp_path, cache=tmp_path)
    told: list[tuple[int, int]] = []
    probing = Probing(
        manifest=manifest,
        blobs=blobs,
        sources=lambda _: contextlib.nullcontext(sources),
        compute=Compute("cpu", None, 1),
        max_images=100,
        on_progress=lambda done, total: told.append((done, total)),
    )
    ranking = recommend(["timm_test_resnet", "resnet18", "unet", "timm_test_resnet"], probing)
    (score,) = ranking.scores
    assert score.base_model == "timm_test_resnet"
    assert 0.15 < score.probe_accuracy <= 1
    assert 0.1 < score.knn_accuracy <= 1
    assert score.time_per_image_s > 0
    assert score.parameter_count == sum(
        parameter.numel()
        for name, parameter in get_base_model("timm_test_resnet").construct().named_parameters()
        if not name.startswith("fc")
    )
    assert ranking.skipped == {
        "resnet18": "The pretrained weights of resnet18 were not found",
        "unet": "encoder: unet is a network for segmentation, not a backbone",
    }
    assert set(ranking.to_json()) == {"scores", "skipped"}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    empty = replace(probing, manifest=write_subset(manifest, blobs, blobs, {Split.TRAIN: 10}))
    with pytest.raises(InvalidArgumentError, match="two classes"):
        recommend(["timm_test_resnet"], empty)


def test_a_subset_is_stratified_and_about_as_large_as_asked(digits: Digits, tmp_path: Path) -> None:
    manifest, blobs = digits
    few = FolderBlobs(tmp_path)
    subset = write_subset(manifest, blobs, few, {Split.TRAIN: 50, Split.VAL: 10_000})
    labels = [sample.annotation.label for sample in read_samples(subset, few, Split.TRAIN)]
    assert 50 <= len(labels) <= 60
    assert {labels.count(label) for label in range(10)} <= {4, 5, 6}
    assert subset.count(Split.VAL) == manifest.count(Split.VAL)
    assert subset.count(Split.TEST) == 0


def test_features_that_tell_classes_apart_are_seen_to() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    centres = torch.randn(4, 16, generator=generator)

    def drawn(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        return centres[labels] + noise * torch.randn(200, 16, generator=generator), labels

    assert knn_accuracy(drawn(0.1), drawn(0.1)) == probe_accuracy(drawn(0.1), drawn(0.1)) == 1
    assert probe_accuracy(drawn(50.0), drawn(50.0)) < 0.4
    assert knn_accuracy(drawn(50.0), drawn(50.0)) < 0.4


def test_within_one_standard_error_the_faster_comes_first() -> None:
    def model(name: str, accuracy: float, seconds: float) -> RankedModel:
        return RankedModel(name, accuracy, accuracy, seconds, 1)

    scores = [model("slow", 0.91, 3), model("fast", 0.90, 1), model("bad", 0.5, 0.1), model("worse", 0.3, 0.1)]
    assert [one.base_model for one in rank(scores, 100)] == ["fast", "slow", "bad", "worse"]
    assert [one.base_model for one in rank(scores, 10_000_000)] == ["slow", "fast", "bad", "worse"]


@pytest.mark.parametrize("images", [37, 100, 2000])
def test_one_image_more_does_not_outweigh_cost_when_all_are_right(images: int) -> None:
    scores = [
        RankedModel("huge", 1.0, 1.0, 1.0, 600_000_000),
        RankedModel("small", 1 - 1 / images, 1.0, 0.01, 3_000_000),
        RankedModel("worse", 1 - 3 / images, 1.0, 0.001, 1_000_000),
    ]
    assert [one.base_model for one in rank(scores, images)] == ["small", "huge", "worse"]
