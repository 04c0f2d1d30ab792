"""Detection and segmentation train the heads first: what FINE_TUNE promises, interruptions, and two workers."""

import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed as dist

from enxerto.vision.finetuning import FinetuneSpec, Optimizer, StopSpec, Strategy, Weights
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.progress import EpochReport, Phase
from enxerto.vision.torch.recipe import Job, Trained
from enxerto.vision.torch.recipes import get_recipe
from fakes.checkpoints import MemoryCheckpoints
from fakes.datasets import detection_scenes, segmentation_scenes, snapshot_of
from fakes.dense_jobs import family, job, tiny_encoder
from worker_pairs import run_pair

# Runs that several tests hold others against are trained once.
pytestmark = pytest.mark.xdist_group("heads-first")
Snapshot = tuple[Manifest, FolderBlobs]
Unbroken = Callable[[Task, Strategy], Trained]
DENSE = (Task.DETECTION, Task.SEGMENTATION)
NAMES = {Task.DETECTION: "ssdlite", Task.SEGMENTATION: "unet"}
EPOCHS = 3

# Of mAP and mIoU: two workers see other batches, and batch norm of new layers other statistics.
NOISE = 0.1


class StoppedByHandError(Exception):
    pass


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Snapshot]:
    folder = tmp_path_factory.mktemp("scenes")
    return {
        Task.DETECTION: snapshot_of(detection_scenes(16), folder / "boxes"),
        Task.SEGMENTATION: snapshot_of(segmentation_scenes(16, 2), folder / "masks"),
    }


def _spec(task: Task, strategy: Strategy, **values: object) -> FinetuneSpec:
    chosen: dict[str, object] = {
        "encoder": tiny_encoder(),
        "weights": Weights.NONE,
        "image_size": 64,
        "epochs": EPOCHS,
        "batch_size": 4,
        "stop": StopSpec(),
    }
    return FinetuneSpec.with_defaults(NAMES[task], task=task, strategy=strategy, **{**chosen, **values})  # type: ignore[arg-type]


def _job(spec: FinetuneSpec, data: Snapshot, **hooks: object) -> Job:
    made = job(spec, family(NAMES[spec.task], spec.task, library=f"torchvision/{spec.base_model}"), data, Path("/none"))
    return replace(made, **hooks)  # type: ignore[arg-type]


def _train(job: Job) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_recipe(job.spec.task).train(job)


@pytest.fixture(scope="module")
def unbroken(snapshots: dict[Task, Snapshot]) -> Unbroken:
    """Runs of the usual spec that nothing interrupts."""
    return functools.cache(lambda task, strategy: _train(_job(_spec(task, strategy), snapshots[task])))


def _state(trained: Trained) -> dict[str, torch.Tensor]:
    assert trained.network is not None
    return dict(trained.network.state_dict())


def _same(one: Trained, other: Trained) -> bool:
    first, second = _state(one), _state(other)
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def _told(reports: tuple[EpochReport, ...]) -> list[tuple[Phase, int, float, float]]:
    return [(one.phase, one.epoch, one.score, one.val_loss) for one in reports]


@pytest.mark.parametrize("task", DENSE)
def test_tuning_never_ends_below_the_heads_alone(unbroken: Unbroken, task: Task) -> None:
    alone, tuned = unbroken(task, Strategy.FEATURE_EXTRACTION), unbroken(task, Strategy.FINE_TUNE)
    assert _told(tuned.history[:EPOCHS]) == _told(alone.history)
    assert [one.phase for one in tuned.history[EPOCHS:]] == [Phase.FINE_TUNE] * EPOCHS
    best, floor = tuned.history[tuned.best], alone.history[alone.best]
    assert (best.score, -best.val_loss) >= (floor.score, -floor.val_loss)


@pytest.mark.parametrize("task", DENSE)
def test_what_tuning_spoils_is_not_kept(snapshots: dict[Task, Snapshot], unbroken: Unbroken, task: Task) -> None:
    alone = unbroken(task, Strategy.FEATURE_EXTRACTION)
    kept = MemoryCheckpoints()

    def break_off(report: EpochReport) -> None:
        if report.phase is Phase.FINE_TUNE:
            raise StoppedByHandError

    spec = _spec(task, Strategy.FINE_TUNE)
    with pytest.raises(StoppedByHandError):
        _train(_job(spec, snapshots[task], checkpoints=kept, on_epoch=break_off))
    # Goes on from the end of the first phase, with steps that no network survives.
    reckless = replace(
        spec, optimizer=Optimizer.SGD, learning_rate=10.0, backbone_learning_rate_ratio=1.0, gradient_clip_norm=0.0
    )
    tuned = _train(_job(reckless, snapshots[task], checkpoints=kept))
    assert tuned.notes["kept"].startswith("the heads")
    assert tuned.best == alone.best
    assert _same(tuned, alone)


@pytest.mark.parametrize("task", DENSE)
@pytest.mark.parametrize("phase", [Phase.TRAIN, Phase.FINE_TUNE])
def test_an_interrupted_run_ends_as_an_unbroken_one(
    snapshots: dict[Task, Snapshot], unbroken: Unbroken, task: Task, phase: Phase
) -> None:
    spec, data, whole = _spec(task, Strategy.FINE_TUNE), snapshots[task], unbroken(task, Strategy.FINE_TUNE)
    kept = MemoryCheckpoints()

    def break_off(report: EpochReport) -> None:
        if report.phase is phase and report.epoch == 2:
            raise StoppedByHandError

    with pytest.raises(StoppedByHandError):
        _train(_job(spec, data, checkpoints=kept, on_epoch=break_off))
    assert (kept.all[-1].phase, kept.all[-1].epoch) == (phase.value, 1)
    resumed = _train(_job(spec, data, checkpoints=kept))
    assert _same(resumed, whole)
    assert _told(resumed.history) == _told(whole.history)


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE)
def test_two_workers_end_as_one_does(tmp_path: Path, task: Task) -> None:
    scenes = detection_scenes(32) if task is Task.DETECTION else segmentation_scenes(32, 2)
    manifest, blobs = snapshot_of(scenes, tmp_path / "blobs")
    (tmp_path / "manifest").write_bytes(manifest.to_bytes())
    run_pair(__file__, tmp_path, blobs.folder, task.value)
    (first, best), (second, _) = (torch.load(tmp_path / f"out{rank}") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = _train(_job(_learning(task), (manifest, blobs)))
    assert best == pytest.approx(alone.history[alone.best].score, abs=NOISE)


def _learning(task: Task) -> FinetuneSpec:
    """A run that learns something, so that its score says something."""
    return _spec(
        task, Strategy.FINE_TUNE, encoder="efficientnet_lite0", weights=Weights.PRETRAINED, epochs=6, image_size=96
    )


def _worker(rank: int, folder: Path, blobs: Path, task: Task) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = Manifest.from_bytes((folder / "manifest").read_bytes()), FolderBlobs(blobs)
    trained = _train(_job(_learning(task), data, where=Distribution(rank, 2, rank, 2)))
    torch.save((_state(trained), trained.history[trained.best].score), folder / f"out{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Task(sys.argv[4]))
