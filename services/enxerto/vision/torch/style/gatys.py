"""Gatys' optimisation: the pixels of a picture themselves are what learns."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image

from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.images import load
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.engine import Attempt, StopReason
from enxerto.vision.torch.engine.state import report_from_json, report_to_json
from enxerto.vision.torch.progress import EpochReport, Phase, StepMeter
from enxerto.vision.torch.recipe import Checkpoint, Job
from enxerto.vision.torch.style.objective import Objective, loss_values
from enxerto.vision.torch.style.pictures import count_contents, read_contents, to_image, to_tensor
from enxerto.vision.torch.style.similarity import ssim

_RATE: Final = 0.02
_POINTS: Final = 10
"""Points of each picture's loss curve."""
_ORDER: Final = (Split.TEST, Split.VAL, Split.TRAIN)
"""A run is measured on the first of these that it has, so that there is a picture of it however early time is over."""


@dataclass(frozen=True, slots=True)
class Stylised:
    """One picture in the style.

    Attributes:
        path: of the content picture, relative to the source's root.
        split: of the content picture.
        png: the encoded picture.
        metrics: `loss`, `content_loss`, `style_loss`, `total_variation_loss` and `ssim`.
    """

    path: str
    split: Split
    png: bytes
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Optimised:
    """What the optimisation gives, the same on every worker.

    Attributes:
        pictures: held-out splits first, each in order of path; not all of them, but one or more, when time ran out.
        history: the loss curves of rank 0's pictures, one after the other.
        stop_reason: EPOCHS or MAX_DURATION.
    """

    pictures: tuple[Stylised, ...]
    history: tuple[EpochReport, ...]
    stop_reason: StopReason


Curve = Callable[[int, int, Mapping[str, float], float], None]
"""Told (point, of points, metrics, steps a second)."""


def optimise_picture(
    content: torch.Tensor, objective: Objective, steps: int, on_point: Curve, on_steps: Callable[[int], None]
) -> tuple[torch.Tensor, Mapping[str, float]]:
    """The (1, 3, H, W) picture in [0, 1] with the lowest loss that `steps` steps from its content find.

    Gatys et al. 2016, "Image Style Transfer Using Convolutional Neural Networks". With Adam instead of their L-BFGS:
    after 120 evaluations of the loss Adam had brought it from 1.02 to 0.64, L-BFGS to 0.73, and to 0.79 with a strong
    Wolfe line search (EfficientNet-Lite0, 256 x 176 pixels). From the content instead of noise, so that objects stay.
    """
    picture = content.clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=_RATE)
    with torch.no_grad():
        wanted = objective.network.maps(content)
    points = min(_POINTS, steps)
    done = 0
    for point in range(1, points + 1):
        began, until = time.perf_counter(), steps * point // points
        for _ in range(until - done):
            optimizer.zero_grad()
            torch.autograd.backward(objective.total(objective.network.losses(picture, wanted, objective.style)))
            optimizer.step()
            with torch.no_grad():
                picture.clamp_(0, 1)
            on_steps(1)
        rate = (until - done) / max(time.perf_counter() - began, 1e-9)
        done = until
        metrics = _measured(picture.detach(), content, objective)
        on_point(point, points, metrics, rate)
    return picture.detach(), metrics


class GatysRun:
    """Every content picture of a snapshot, each worker a part of them; a checkpoint after a round, not after each."""

    def __init__(self, job: Job, objective: Objective, preprocess: PreprocessSpec) -> None:
        self._job, self._objective, self._preprocess = job, objective, preprocess
        self._total = sum(count_contents(job.manifest, job.blobs, split) for split in Split)
        self._done: list[Stylised] = []
        self._history: list[EpochReport] = []
        self._due = 0.0

    def run(self) -> Optimised:
        """Optimise what no checkpoint has."""
        job, where = self._job, self._job.where
        attempt = Attempt.begin(job)
        self._resume(attempt.stored)
        budget = attempt.budget
        stop = StopReason.EPOCHS
        samples = self._samples()
        while batch := list(islice(samples, where.world_size)):
            if self._done and budget.out_of_time(job.compute.device):
                stop = StopReason.MAX_DURATION
                break
            mine = self._stylise(batch[where.rank]) if where.rank < len(batch) else None
            self._done += [one for one in self._gathered(mine) if one is not None]
            self._save(budget.spent_s)
        return Optimised(tuple(self._done), tuple(self._first(self._history)), stop)

    def _samples(self) -> Iterator[StoredSample]:
        """What is still to be done."""
        done = {one.path for one in self._done}
        contents = (read_contents(self._job.manifest, self._job.blobs, split) for split in _ORDER)
        return (one for pictures in contents for one in pictures if one.path not in done)

    def _stylise(self, sample: StoredSample) -> Stylised:
        job = self._job
        image = load(sample.data, self._preprocess, job.limits)
        meter = StepMeter(Phase.TRAIN, job.spec.style.steps, job.on_step)
        picture, metrics = optimise_picture(
            to_tensor(image).to(job.compute.device), self._objective, job.spec.style.steps, self._tell, meter.add
        )
        buffer = io.BytesIO()
        Image.fromarray(to_image(picture[0])).save(buffer, "PNG")
        return Stylised(sample.path, sample.split, buffer.getvalue(), dict(metrics))

    def _tell(self, point: int, points: int, metrics: Mapping[str, float], rate: float) -> None:
        spec = self._job.spec
        rounds = -(-self._total // self._job.where.world_size)
        done = len(self._history) + 1
        left = (rounds * points - done) * (spec.style.steps / points)
        report = EpochReport(
            epoch=done,
            epochs=rounds * points,
            phase=Phase.TRAIN,
            train_loss=metrics["loss"],
            val_loss=metrics["loss"],
            score=-metrics["loss"],
            metrics=dict(metrics),
            learning_rate=_RATE,
            images_per_s=rate / spec.style.steps,
            eta_s=left / max(rate, 1e-9),
        )
        self._history.append(report)
        self._job.on_epoch(report)

    def _gathered(self, mine: Stylised | None) -> list[Stylised | None]:
        """Every worker's picture of the round, in order of rank."""
        if self._job.where.world_size == 1:
            return [mine]
        every: list[Stylised | None] = [None] * self._job.where.world_size
        dist.all_gather_object(every, mine)
        return every

    def _first(self, values: list[EpochReport]) -> list[EpochReport]:
        if self._job.where.world_size == 1:
            return values
        every: list[list[EpochReport]] = [[]] * self._job.where.world_size
        dist.all_gather_object(every, values)
        return every[0]

    # --- checkpoints ---

    def _save(self, spent_s: float) -> None:
        """Keep the pictures so far, in at most a tenth of the time: a checkpoint holds all of them."""
        job, when = self._job, self._job.spec.checkpoints
        if job.checkpoints is None or job.where.rank != 0 or (when.every_epochs == 0 and when.every_s == 0):
            return
        began = time.perf_counter()
        if began < self._due:
            return
        pictures = [{"path": one.path, "split": one.split.value, "metrics": one.metrics} for one in self._done]
        meta = {"pictures": pictures, "history": [report_to_json(one) for one in self._history], "spent_s": spent_s}
        tensors = {
            f"png/{index}": torch.from_numpy(np.frombuffer(one.png, np.uint8).copy())
            for index, one in enumerate(self._done)
        }
        job.checkpoints.save(Checkpoint(Phase.TRAIN.value, len(self._done), meta, tensors))
        ended = time.perf_counter()
        self._due = ended + max(9 * (ended - began), when.every_s)

    def _resume(self, checkpoint: Checkpoint | None) -> None:
        """Take over what a checkpoint has."""
        if checkpoint is None or "pictures" not in checkpoint.meta:
            return
        self._done = [
            Stylised(
                one["path"], Split(one["split"]), checkpoint.tensors[f"png/{index}"].numpy().tobytes(), one["metrics"]
            )
            for index, one in enumerate(checkpoint.meta["pictures"])
        ]
        self._history = [report_from_json(one) for one in checkpoint.meta["history"]]
        self._job.on_log(f"going on after picture {len(self._done)} of {self._total}")


def _measured(picture: torch.Tensor, content: torch.Tensor, objective: Objective) -> Mapping[str, float]:
    with torch.no_grad():
        losses = objective.measure(picture, content)
        return loss_values(losses, objective.total(losses), ssim(picture, content).mean())
