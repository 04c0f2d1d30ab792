"""Checkpoints within an epoch: every task's run goes on from there as if nothing had been."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from enxerto.vision.finetuning import (
    AugmentationSpec,
    AugmentPolicy,
    CheckpointSpec,
    FinetuneSpec,
    HeadSpec,
    StopSpec,
    Strategy,
    UnfreezingSpec,
    Weights,
)
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.progress import EpochReport, Phase
from enxerto.vision.torch.recipe import Job, Trained
from enxerto.vision.torch.recipes import get_recipe
from fakes.checkpoints import MemoryCheckpoints
from fakes.datasets import classification_scenes, detection_scenes, segmentation_scenes, snapshot_of, style_scenes
from fakes.dense_jobs import family, job, tiny_encoder
from worker_pairs import run_pair

Snapshot = tuple[Manifest, FolderBlobs]
BASE_MODELS = {Task.DETECTION: "ssdlite", Task.SEGMENTATION: "deeplabv3plus", Task.STYLE: "fast_style"}
SCENES = {
    Task.CLASSIFICATION: lambda: classification_scenes(16, 3, side=64),
    Task.DETECTION: lambda: detection_scenes(16),
    Task.SEGMENTATION: lambda: segmentation_scenes(16, 2),
    Task.STYLE: lambda: style_scenes(12),
}


def _job(task: Task, data: Snapshot, **values: Any) -> Job:
    """One epoch of FINE_TUNE (of style: one epoch) with a checkpoint after every step."""
    name = BASE_MODELS.get(task, tiny_encoder())
    own: dict[str, Any] = (
        {"encoder": tiny_encoder()} if task in BASE_MODELS else {"head": HeadSpec(hidden_units=8, dropout=0.2)}
    )
    if task is not Task.STYLE:
        own |= {"strategy": Strategy.FINE_TUNE, "unfreezing": UnfreezingSpec(stages=2)}
    if task is Task.CLASSIFICATION:
        own |= {"augmentation": AugmentationSpec(policy=AugmentPolicy.LIGHT, mixup_alpha=0.2)}
    spec = FinetuneSpec.with_defaults(
        name,
        task=task,
        weights=Weights.NONE,
        image_size=64,
        epochs=1,
        batch_size=4,
        stop=StopSpec(),
        checkpoints=CheckpointSpec(every_epochs=0, every_s=1e-9),
        **own,
    )
    facts = family(name, task, library=f"torchvision/{name}", takes_encoder=task in BASE_MODELS)
    return replace(job(spec, facts, data, Path("/nonexistent")), **values)


def _told(trained: Trained) -> list[EpochReport]:
    return [replace(report, images_per_s=0, eta_s=0) for report in trained.history]


def _state(trained: Trained) -> dict[str, torch.Tensor]:
    assert trained.network is not None
    return dict(trained.network.state_dict())


def _assert_same(one: Trained, other: Trained) -> None:
    assert _told(one) == _told(other)
    first, second = _state(one), _state(other)
    assert all(torch.equal(first[name], second[name]) for name in first)


def _halfway(kept: MemoryCheckpoints, phase: Phase) -> MemoryCheckpoints:
    """What was kept when the phase's first epoch had made a step."""
    (found,) = [one for one in kept.all if (one.phase, one.epoch, one.step) == (phase.value, 0, 1)]
    return MemoryCheckpoints(found)


@pytest.mark.parametrize("task", list(Task))
def test_a_run_goes_on_from_within_an_epoch(tmp_path: Path, task: Task) -> None:
    data = snapshot_of(SCENES[task](), tmp_path)
    train = get_recipe(task).train
    kept = MemoryCheckpoints()
    unbroken = train(_job(task, data, checkpoints=kept))
    halfway = _halfway(kept, Phase.TRAIN if task is Task.STYLE else Phase.FINE_TUNE)
    _assert_same(train(_job(task, data, checkpoints=halfway)), unbroken)


def test_several_workers_go_on_from_the_same_step(tmp_path: Path) -> None:
    manifest, blobs = snapshot_of(SCENES[Task.CLASSIFICATION](), tmp_path / "blobs")
    (tmp_path / "manifest").write_bytes(manifest.to_bytes())
    run_pair(__file__, tmp_path, blobs.folder, seconds=200)


def _worker(rank: int, folder: Path, blobs: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = Manifest.from_bytes((folder / "manifest").read_bytes()), FolderBlobs(blobs)
    where, train = Distribution(rank, 2, rank, 2), get_recipe(Task.CLASSIFICATION).train
    kept = MemoryCheckpoints()
    unbroken = train(_job(Task.CLASSIFICATION, data, where=where, checkpoints=kept))
    # Only the first worker saves; every one loads what it has saved.
    found = [_halfway(kept, Phase.FINE_TUNE) if rank == 0 else None]
    dist.broadcast_object_list(found)
    resumed = train(_job(Task.CLASSIFICATION, data, where=where, checkpoints=found[0]))
    _assert_same(resumed, unbroken)
    dist.destroy_process_group()


if __name__ == "__main__":
    _worker(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
