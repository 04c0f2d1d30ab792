"""What training a task means to the worker: one recipe for each task."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.contracts import Outputs
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.images import DEFAULT_LIMITS, Float32Images, ImageLimits
from enxerto.vision.report import Figure, Table
from enxerto.vision.snapshots import BlobSource, Manifest
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.progress import EpochReport, OnEpoch, OnStep
from enxerto.vision.torch.weights import WeightsSources

Predict = Callable[[Float32Images], Outputs]
"""(N, 3, H, W) float32 images in [0, 1] to the task's outputs, whether torch or ONNX Runtime computes them."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where training can go on from.

    Attributes:
        phase: the part of the run, a value of `Phase`.
        epoch: epochs done in it.
        step: steps of the optimizer done in the epoch after these; 0 between epochs.
        meta: JSON values: counters, history, schedule.
        tensors: by name: parameters, buffers, optimiser state, averages, the best epoch's weights.
    """

    phase: str
    epoch: int
    meta: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    step: int = 0


class Checkpoints(Protocol):
    """Where checkpoints are kept, outside of the machine. Only rank 0 saves; every worker loads."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep this one instead of the one before; whole or not at all."""
        ...

    def load(self) -> Checkpoint | None:
        """The last one."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What a worker keeps of its images of a split for as long as it trains.

    Attributes:
        split: whose images.
        image_bytes: of each image.
        most_bytes: in memory; what is more lies on the disk.
        seconds: that it took to make them.
        features: whether it is features: of the whole split on every worker, and on its device.
    """

    split: Split
    image_bytes: int
    most_bytes: int = sys.maxsize
    seconds: float = 0.0
    features: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that a recipe is given. The same on every worker but for `where` and `compute`.

    Attributes:
        spec: what to do.
        facts: of the base model.
        manifest: of the snapshot; its task is the recipe's.
        blobs: where its shards are.
        sources: of pretrained weights.
        where: this worker's place.
        compute: device, precision and threads.
        on_epoch: told after every epoch, on every worker; may raise to cancel.
        on_step: told about twice a second, on every worker; may raise to cancel.
        on_phase: told what is done now, with (done, total) images, or zeros; lower-case words.
        on_log: told what a person should know.
        on_kept: told what is kept of the images, once it is there.
        checkpoints: None keeps none.
        limits: of an image.
    """

    spec: FinetuneSpec
    facts: BaseModelFacts
    manifest: Manifest
    blobs: BlobSource
    sources: WeightsSources
    where: Distribution
    compute: Compute
    on_epoch: OnEpoch = lambda _: None
    on_step: OnStep | None = None
    on_phase: Callable[[str, int, int], None] = lambda _phase, _done, _total: None
    on_log: Callable[[str], None] = lambda _: None
    on_kept: Callable[[Kept], None] = lambda _: None
    checkpoints: Checkpoints | None = None
    limits: ImageLimits = DEFAULT_LIMITS

    @contextmanager
    def keeping(self, split: Split, image_bytes: int, most_bytes: int) -> Iterator[None]:
        """Around the decoding of a split into memory: tells how long it took; see `Kept`."""
        began = time.perf_counter()
        yield
        self.on_kept(Kept(split, image_bytes, most_bytes, time.perf_counter() - began))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training gives, the same on every worker.

    Attributes:
        network: on the CPU, in eval mode, of the best epoch; its state dict is stored. None when nothing was learned
            that could be served (Gatys).
        served: what is exported: [0, 1] images to the contract's outputs, on the CPU, in eval mode. None likewise.
        preprocess: from an encoded picture to its input.
        class_names: in label order; never empty.
        history: every epoch's report, in order.
        best: index into `history`; -1 when no epoch was kept.
        stop_reason: EPOCHS, EARLY_STOPPING, MAX_DURATION or TARGET_SCORE.
        weights_sha256: of the file of pretrained weights; empty without.
        weights_source: where that file came from, for people.
        notes: what was decided, for people and for lineage: batch norm, temperature, thresholds, learning rate found.
        files: more files that the run leaves, in a folder that lives as long as the job.
    """

    network: nn.Module | None
    served: nn.Module | None
    preprocess: PreprocessSpec
    class_names: tuple[str, ...]
    history: tuple[EpochReport, ...]
    best: int
    stop_reason: str
    weights_sha256: str = ""
    weights_source: str = "none: random numbers from the seed"
    notes: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class MeasuredMetric:
    """One number.

    Attributes:
        name: stable, snake case.
        value: ratios in [0, 1].
        class_name: the class; empty for all of them.
    """

    name: str
    value: float
    class_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a split is answered.

    Attributes:
        score: the task's own metric, higher is better; what quantisation may lose a little of.
        score_name: its metric's name.
        metrics: all that is registered, the own metric first.
        detail: JSON values for metrics.json: confusion matrix, curves.
        headline: at the top of the report: name to text.
        figures: for the report.
        tables: for the report.
    """

    score: float
    score_name: str
    metrics: tuple[MeasuredMetric, ...]
    detail: Mapping[str, Any]
    headline: Mapping[str, str]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


class Recipe(Protocol):
    """How one task is trained and measured."""

    task: Task

    def train(self, job: Job) -> Trained:
        """Train; called on every worker at once.

        Raises:
            InvalidArgumentError: the spec does not fit the base model or the data.
            WeightsUnavailableError: no source has the pretrained weights.
        """
        ...

    def evaluate(self, predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
        """Measure a whole split through the outputs that are served; called on one worker."""
        ...

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        """(n, 3, H, W) float32 training images in [0, 1], at most `count`, drawn with the seed: for quantisation and
        parity."""
        ...
