"""Batches that are made ahead are the batches that are made in turn, and nothing is left of who made them."""

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import AugmentationSpec, AugmentPolicy, FinetuneSpec, Strategy, Weights
from enxerto.vision.specs import Task
from enxerto.vision.torch.devices import Compute, DeviceFacts, choose_compute
from enxerto.vision.torch.feeding import Feed
from enxerto.vision.torch.recipes import get_recipe
from fakes.datasets import (
    Scenes,
    classification_scenes,
    detection_scenes,
    segmentation_scenes,
    snapshot_of,
    style_scenes,
)
from fakes.dense_jobs import job, tiny_encoder

AHEAD = Compute("cpu", None, 1, loaders=2)


@pytest.fixture(autouse=True)
def _leaves_nobody_behind() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    gc.collect()
    _, left = psutil.wait_procs(set(psutil.Process().children()) - before, 10)
    assert not left


def test_a_gpu_has_loaders_and_a_cpu_has_none() -> None:
    cores = {count: choose_compute(DeviceFacts(1, True, count)).loaders for count in (1, 2, 4, 64)}
    assert cores == {1: 1, 2: 1, 4: 3, 64: 8}
    assert choose_compute(DeviceFacts(0, False, 64)).loaders == 0


def test_an_epoch_that_ends_early_leaves_nothing_to_the_next() -> None:
    feed = Feed(lambda part: torch.tensor([part]), AHEAD)
    state = torch.get_rng_state()
    first = feed.follow(range(50))
    assert [int(next(first)) for _ in range(3)] == [0, 1, 2]
    assert [int(one) for one in feed.follow(range(100, 110))] == list(range(100, 110))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_is_the_callers() -> None:
    def fails(part: int) -> torch.Tensor:
        raise ValueError(f"no picture {part}")

    feed = Feed(fails, AHEAD)
    with pytest.raises(ValueError, match="no picture 7"):
        next(feed.follow([7]))


@pytest.mark.parametrize(
    ("task", "base_model", "scenes"),
    [
        (Task.CLASSIFICATION, "mobilenet_v3_small", lambda: classification_scenes(8, 2, side=48)),
        (Task.DETECTION, "ssdlite", lambda: detection_scenes(8)),
        (Task.SEGMENTATION, "unet", lambda: segmentation_scenes(8, 2)),
        (Task.STYLE, "fast_style", lambda: style_scenes(6)),
    ],
)
def test_runs_end_with_the_same_weights(
    task: Task, base_model: str, scenes: Callable[[], Scenes], tmp_path: Path
) -> None:
    facts = get_facts(base_model)
    spec = FinetuneSpec.with_defaults(
        base_model,
        task=task,
        encoder=tiny_encoder() if facts.takes_encoder else "",
        weights=Weights.NONE,
        strategy=Strategy.FEATURE_EXTRACTION if task is Task.STYLE else Strategy.FINE_TUNE,
        image_size=64,
        epochs=2,
        batch_size=4,
        augmentation=AugmentationSpec(policy=AugmentPolicy.LIGHT),
    )
    in_turn = job(spec, facts, snapshot_of(scenes(), tmp_path), tmp_path)
    with warnings.catch_warnings():
        # Of forking beside other threads, which hold nothing that a loader needs.
        warnings.simplefilter("ignore")
        one, other = (get_recipe(task).train(work).network for work in (in_turn, replace(in_turn, compute=AHEAD)))
    assert one is not None
    assert other is not None
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
