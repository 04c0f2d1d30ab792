"""What a run would take: the real recipe on a few images, scaled up to all of them."""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from enxerto.vision.blobs import FolderBlobs
from enxerto.vision.finetuning import StopSpec, UnfreezingSpec
from enxerto.vision.specs import Split, Task
from enxerto.vision.subsets import write_subset
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.export import torch_network
from enxerto.vision.torch.progress import EpochReport, OnStep, Phase, StepReport
from enxerto.vision.torch.recipe import Job, Kept, Recipe, Trained

_STEPS: Final = 6
"""Of an epoch that is measured."""

_EPOCHS: Final = 2
"""The first warms up: allocators, threads, kernels."""

_MOST_IMAGES: Final = 512
_ANSWERED: Final = 8
"""Images that are answered at once when that is measured."""
_PICTURE_STEPS: Final = 20
"""Of the optimisation of one picture that are measured."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take, should it not stop early; weights, export and what workers tell each other come on top.

    Attributes:
        duration_s: of decoding, of all phases, and of measuring what was trained.
        epoch_duration_s: of an epoch of the last phase, its validation included.
        images_per_second: training images in the last phase, over all workers.
        memory_bytes: largest resident memory of a worker's process: as measured, and what all images take beyond those
            that were measured.
        gpu_memory_bytes: largest GPU memory of a worker, likewise; 0 without a GPU.
        measured_steps: of training, after the warm-up.
        device: what it was measured on.
    """

    duration_s: float
    epoch_duration_s: float
    images_per_second: float
    memory_bytes: int
    gpu_memory_bytes: int
    measured_steps: int
    device: str

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "duration_s": self.duration_s,
            "epoch_duration_s": self.epoch_duration_s,
            "images_per_second": self.images_per_second,
            "memory_bytes": self.memory_bytes,
            "gpu_memory_bytes": self.gpu_memory_bytes,
            "measured_steps": self.measured_steps,
            "device": self.device,
        }


def estimate(job: Job, recipe: Recipe, *, workers: int = 1) -> Estimate:
    """Train on a small part of the snapshot, and scale what was measured by the images that there are.

    All stages that are to learn learn from the first measured epoch on, so that gradual unfreezing is estimated at its
    most expensive.

    Args:
        job: alone, but with what one of the run's workers has to compute with; its progress is told, its checkpoints
            are not touched.
        recipe: of its task.
        workers: of the run, each of which is as fast as this one; the work is divided by them, their talk is not
            measured.

    Raises:
        InvalidArgumentError: the spec does not fit the base model or the data.
        WeightsUnavailableError: no source has the pretrained weights.
    """
    cuda = job.compute.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(job.compute.device)
    with tempfile.TemporaryDirectory(prefix="enxerto-estimate-") as scratch:
        clock, small = _measure(job, recipe, Path(scratch), workers)
    whole = _scaled(job, clock, small, workers)
    pixels, features = (_more_bytes(job, clock, small, workers, features=one) for one in (False, True))
    return Estimate(
        duration_s=whole.duration_s + _decoding_s(job, clock, small, workers) + _evaluation_s(job, clock),
        epoch_duration_s=whole.epoch_s,
        images_per_second=whole.rate,
        memory_bytes=_resident_peak_bytes() + pixels + (0 if cuda else features),
        gpu_memory_bytes=torch.cuda.max_memory_allocated(job.compute.device) + features if cuda else 0,
        measured_steps=clock.steps(job, small),
        device=_called(job.compute),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    train: int
    val: int

    def of(self, split: Split) -> int:
        return self.train if split is Split.TRAIN else self.val


@dataclass(frozen=True, slots=True)
class _Whole:
    duration_s: float
    epoch_s: float
    rate: float


class _Clock:
    """Notes when the recipe told what."""

    def __init__(self, on_step: OnStep | None) -> None:
        self._on_step = on_step
        self.epochs: list[tuple[float, EpochReport]] = []
        self.features_rate = 0.0
        self.kept: list[Kept] = []
        self.answer_s = 0.0
        """Of one image, by what was trained."""
        self._last = time.perf_counter()

    def epoch(self, report: EpochReport) -> None:
        now = time.perf_counter()
        self.epochs.append((now - self._last, report))
        self._last = now

    def step(self, report: StepReport) -> None:
        if report.phase is Phase.FEATURES:
            self.features_rate = report.images_per_s
            self._last = time.perf_counter()
        if self._on_step is not None:
            self._on_step(report)

    def of_phase(self, phase: Phase) -> list[tuple[float, EpochReport]]:
        """Its epochs without the first, unless that is all."""
        found = [one for one in self.epochs if one[1].phase is phase]
        return found[1:] or found

    def steps(self, job: Job, small: _Counts) -> int:
        if job.spec.paints_pictures:
            return _PICTURE_STEPS
        epochs = len(self.of_phase(self.epochs[-1][1].phase))
        return epochs * max(1, math.ceil(small.train / job.spec.batch_size))


def _measure(job: Job, recipe: Recipe, scratch: Path, workers: int) -> tuple[_Clock, _Counts]:
    spec = job.spec
    batch = max(1, spec.batch_size // workers)
    train = max(2, min(_MOST_IMAGES, batch * spec.accumulation_steps * _STEPS))
    if job.spec.paints_pictures:
        train = 2
    blobs = FolderBlobs(scratch)
    most = {Split.TRAIN: train, Split.VAL: max(2, train // 4)}
    subset = write_subset(job.manifest, job.blobs, blobs, most)
    clock = _Clock(job.on_step)
    measured = replace(
        job,
        manifest=subset,
        blobs=blobs,
        checkpoints=None,
        on_epoch=clock.epoch,
        on_step=clock.step,
        on_kept=clock.kept.append,
        spec=replace(
            spec,
            epochs=_EPOCHS,
            batch_size=batch,
            stop=StopSpec(),
            unfreezing=UnfreezingSpec(stages=spec.unfreezing.stages),
            find_learning_rate=False,
            style=replace(spec.style, steps=min(spec.style.steps, _PICTURE_STEPS))
            if spec.task is Task.STYLE
            else spec.style,
        ),
    )
    trained = recipe.train(measured)
    if trained.served is not None:
        clock.answer_s = _answer_s(measured, recipe, trained)
    return clock, _Counts(subset.count(Split.TRAIN), subset.count(Split.VAL))


def _answer_s(job: Job, recipe: Recipe, trained: Trained) -> float:
    """Seconds that an image takes to be decoded and answered."""
    assert trained.served is not None
    began = time.perf_counter()
    images = recipe.calibration_images(job, trained.preprocess, min(_ANSWERED, job.spec.batch_size))
    decoding_s = (time.perf_counter() - began) / job.compute.threads
    predict = torch_network(trained.served, recipe.task, job.compute.device)
    predict(images)
    began = time.perf_counter()
    predict(images)
    return (decoding_s + time.perf_counter() - began) / len(images)


def _evaluation_s(job: Job, clock: _Clock) -> float:
    """Of measuring what was trained, which the first worker does alone."""
    return clock.answer_s * job.manifest.count(job.manifest.held_out)


def _decoding_s(job: Job, clock: _Clock, small: _Counts, workers: int) -> float:
    """Of the images that are decoded once and kept."""
    return sum(
        kept.seconds / max(small.of(kept.split), 1) * job.manifest.count(kept.split) / workers for kept in clock.kept
    )


def _more_bytes(job: Job, clock: _Clock, small: _Counts, workers: int, *, features: bool) -> int:
    """What a worker keeps of all its images, beyond what it has kept of those that were measured."""
    more = 0
    for kept in clock.kept:
        if kept.features is features:
            images = math.ceil(job.manifest.count(kept.split) / (1 if features else workers))
            more += min(images * kept.image_bytes, kept.most_bytes) - small.of(kept.split) * kept.image_bytes
    return max(more, 0)


def _scaled(job: Job, clock: _Clock, small: _Counts, workers: int) -> _Whole:
    train, val = job.manifest.count(Split.TRAIN), job.manifest.count(Split.VAL)
    last = clock.epochs[-1][1].phase
    if job.spec.paints_pictures:
        steps_per_s = clock.epochs[-1][1].images_per_s * workers
        # All but the style picture.
        pictures = sum(job.manifest.count(split) for split in Split) - 1
        picture_s = job.spec.style.steps / steps_per_s
        return _Whole(pictures * picture_s, picture_s, 1 / picture_s)
    duration_s = (train + val) / (clock.features_rate * workers) if clock.features_rate else 0.0
    epoch_s = rate = 0.0
    for phase in dict.fromkeys(report.phase for _, report in clock.epochs):
        measured = clock.of_phase(phase)
        wall_s = sum(seconds for seconds, _ in measured) / len(measured)
        training_s = sum(small.train / max(report.images_per_s, 1e-9) for _, report in measured) / len(measured)
        # A probe on cached features is the same on every worker; everything else is divided.
        divided = 1 if phase is Phase.LINEAR_PROBE else workers
        train_s = min(training_s, wall_s) * train / small.train / divided
        val_s = max(wall_s - training_s, 0.0) * (val / small.val if small.val else 0.0) / divided
        epoch_s = train_s + val_s
        # A probe that precedes tuning has epochs of its own.
        own = phase is Phase.LINEAR_PROBE and phase is not last
        epochs = measured[-1][1].epochs if own else job.spec.epochs
        duration_s += epochs * epoch_s
        rate = train / max(train_s, 1e-9)
    return _Whole(duration_s, epoch_s, rate)


def _resident_peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _called(compute: Compute) -> str:
    precision = f", {compute.amp_dtype}" if compute.amp_dtype else ""
    if compute.device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(compute.device)}{precision}"
    return f"{compute.device}, {compute.threads} threads{precision}"
