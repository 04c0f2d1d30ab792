"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from enxerto.kernel.errors import FailedPreconditionError
from enxerto.vision.torch.collectives import any_worker, as_first, same_as_first, sum_over_workers
from enxerto.vision.torch.engine.attempt import Attempt
from enxerto.vision.torch.engine.averaging import MovingAverage
from enxerto.vision.torch.engine.budget import StopReason, is_reached, out_of_patience
from enxerto.vision.torch.engine.layers import Layers
from enxerto.vision.torch.engine.rate_finder import find_learning_rate
from enxerto.vision.torch.engine.schedules import make_schedule
from enxerto.vision.torch.engine.state import (
    Before,
    load_optimizer,
    optimizer_tensors,
    part,
    prefixed,
    read_before,
    report_from_json,
    report_to_json,
    score_from_json,
    score_to_json,
)
from enxerto.vision.torch.engine.steps import Stepper
from enxerto.vision.torch.learner import Learner, Score
from enxerto.vision.torch.progress import EpochReport, Phase, StepMeter, Steps
from enxerto.vision.torch.recipe import Checkpoint, Job

_NOTHING_BEFORE: Final = Before()


@dataclass(frozen=True, slots=True)
class _Within:
    """Where an epoch stands, of all workers together but for the batches, which are each worker's."""

    batches: int = 0
    loss_sum: float = 0.0
    images: int = 0


Ahead = Callable[[float, float], float]
"""Seconds of the phases that follow, from the seconds that an epoch of this one trains and validates."""


class TrainingDivergedError(FailedPreconditionError):
    """The loss is no number any more, and no epoch before can be kept."""

    reason = "TRAINING_DIVERGED"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a phase gives, the same on every worker. The learner's network holds the best epoch's weights.

    Attributes:
        best: the validation score of these weights.
        best_epoch: from 1, within the phase; 0 when nothing was better than the start.
        history: the phase's reports, in order.
        stop_reason: why it ended.
        notes: what was decided, for people.
    """

    best: Score
    best_epoch: int
    history: tuple[EpochReport, ...]
    stop_reason: StopReason
    notes: Mapping[str, str]


def fit(
    learner: Learner,
    job: Job,
    attempt: Attempt,
    *,
    phase: Phase,
    epochs: int,
    trains_backbone: bool,
    start: Score | None = None,
    before: Before = _NOTHING_BEFORE,
    ahead: Ahead | None = None,
    replicated: bool = False,
) -> Fitted:
    """Train a phase as the job's spec says, and leave the best epoch's weights in the network, frozen, in eval mode.

    Called on every worker at once. When the attempt's checkpoint is of this phase, training goes on from it, so that
    the result is the one of an unbroken run; what its earlier phases gave is in `read_before(checkpoint)`. A checkpoint
    of another phase is left alone: skipping phases is the recipe's choice.

    Args:
        learner: the network, on its device, and its data.
        job: what to do and whom to tell.
        attempt: where the run stands, and the time that it may still take.
        phase: name of this part of the run.
        epochs: passes over the training images.
        trains_backbone: whether stages learn, as the spec's unfreezing says; else the heads alone.
        start: score of the network as it is, which makes it a candidate: the phase then never ends below it.
        before: what the recipe did so far; kept in the checkpoints.
        ahead: what follows this phase, for the estimate of the time left; None when nothing does.
        replicated: whether every worker's batches are whole ones, the same everywhere, so that nothing is exchanged.

    Raises:
        TrainingDivergedError: the loss became infinite or no number in the first epoch, and there is no `start`.
    """
    layers = Layers(learner, job.spec, trains_backbone=trains_backbone)
    made = _Fit(
        learner,
        job,
        attempt,
        phase=phase,
        epochs=epochs,
        layers=layers,
        start=start,
        before=before,
        ahead=ahead,
        replicated=replicated,
    )
    return made.run()


class _Fit:
    def __init__(
        self,
        learner: Learner,
        job: Job,
        attempt: Attempt,
        *,
        phase: Phase,
        epochs: int,
        layers: Layers,
        start: Score | None,
        before: Before,
        ahead: Ahead | None,
        replicated: bool,
    ) -> None:
        self._learner, self._job, self._phase, self._epochs = learner, job, phase, epochs
        self._layers, self._before, self._ahead = layers, before, ahead
        self._replicated = replicated
        self._exchanges = job.where.world_size > 1 and not replicated
        self._size = max(1, job.spec.batch_size // job.where.world_size) if self._exchanges else job.spec.batch_size
        self._batches = learner.batch_count(self._size)
        self._steps_per_epoch = math.ceil(self._batches / job.spec.accumulation_steps)
        self._history: list[EpochReport] = []
        self._best, self._best_epoch = start, 0
        self._best_state = self._copied() if start is not None else {}
        self._notes = {"batch_norm": layers.statistics}
        self._step = 0
        self._done = 0
        self._within = _Within()
        self._stop: StopReason | None = None
        decay = job.spec.ema_decay
        self._average = MovingAverage(learner.network, decay) if decay > 0 else None
        stored = attempt.stored
        resumed = stored if stored is not None and stored.phase == phase.value else None
        self._budget = attempt.budget
        self._learning_rate = self._choose_rate() if resumed is None else float(resumed.meta["learning_rate"])
        self._stepper = Stepper(learner, job, layers, self._learning_rate, exchanges=self._exchanges)
        self._factor = make_schedule(job.spec.schedule, epochs * self._steps_per_epoch, job.spec.warmup_fraction)
        if resumed is not None:
            self._resume(resumed)
        self._started = self._saved = time.perf_counter()
        self._saved_s = 0.0
        self._trained_s = self._trained_epochs = 0.0

    def run(self) -> Fitted:
        if self._budget.left_s == 0:
            self._job.on_log(f"stop.max_duration was over before the first step of {self._phase.value}")
        if self._stop is None and is_reached(self._job.spec.stop, self._best):
            self._stop = StopReason.TARGET_SCORE
        for epoch in range(self._done + 1, self._epochs + 1):
            if self._stop is not None:
                break
            before, self._within = self._within, _Within()
            train_loss, rate, out_of_time = self._train(epoch, before)
            score = self._validate() if math.isfinite(train_loss) else None
            if score is None or math.isnan(score.loss):
                self._diverged(epoch)
                break
            if score.beats(self._best):
                self._keep(score, epoch)
            self._done = epoch
            self._tell(epoch, train_loss=train_loss, score=score, rate=rate)
            self._stop = self._reason_to_stop(score, epoch, out_of_time=out_of_time)
            self._save(epoch)
        if self._best is None:
            raise TrainingDivergedError("no epoch has a finite loss; try a lower learning rate")
        network = self._learner.network
        network.load_state_dict(self._best_state)
        same_as_first(network, self._job.where)
        network.requires_grad_(False).eval()
        return Fitted(
            best=self._best,
            best_epoch=self._best_epoch,
            history=tuple(self._history),
            stop_reason=self._stop or StopReason.EPOCHS,
            notes=self._notes,
        )

    # --- an epoch ---

    def _train(self, epoch: int, before: _Within) -> tuple[float, float, bool]:
        """Mean loss, images a second over all workers, and whether the time was over before the end."""
        job, spec, start = self._job, self._job.spec, before
        began, saved_s = time.perf_counter(), self._saved_s
        seeds = self._seeds(epoch)
        self._stepper.prepare(epoch)
        meter = StepMeter(self._phase, self._batches * self._size, job.on_step, before.batches * self._size)
        device = job.compute.device
        loss_sum, images, out_of_time = torch.zeros((), device=device), 0, False
        batches = self._learner.batches(epoch, self._size, before.batches)
        for index, (batch, count) in enumerate(batches, before.batches):
            # Dropout and the like draw what they would draw in an unbroken run.
            job.compute.seed(seeds[index])
            position = index % spec.accumulation_steps
            together = min(spec.accumulation_steps, self._batches - (index - position))
            loss_sum += self._stepper.accumulate(batch, of=together) * count
            images += count
            if position + 1 == together:
                self._update()
                out_of_time = self._out_of_time()
                if not out_of_time and index + 1 < self._batches and self._due_within_epoch():
                    before = self._counted(before, index + 1, loss_sum, images)
                    loss_sum, images = torch.zeros((), device=device), 0
                    self._store(epoch - 1, before)
            done = math.ceil((index + 1) / spec.accumulation_steps)
            meter.add(count, Steps(done, self._steps_per_epoch, self._stepper.rate))
            if out_of_time:
                break
        whole = self._counted(before, index + 1, loss_sum, images)
        seconds = time.perf_counter() - began - (self._saved_s - saved_s)
        self._trained_s += seconds
        self._trained_epochs += (whole.batches - start.batches) / self._batches
        rate = (whole.images - start.images) / max(seconds, 1e-9)
        return whole.loss_sum / max(whole.images, 1), rate, out_of_time

    def _seeds(self, epoch: int) -> Sequence[int]:
        """One for each batch of an epoch; the same on every worker where all do the same."""
        rank = self._job.where.rank if self._exchanges else 0
        key = self._job.spec.seed, epoch, rank, list(Phase).index(self._phase)
        return [int(seed) for seed in np.random.SeedSequence(key).generate_state(self._batches)]

    def _out_of_time(self) -> bool:
        """Whether to stop within an epoch. One on cached features is short, and gives a head that is worth keeping."""
        return not self._replicated and self._budget.out_of_time(self._job.compute.device)

    def _counted(self, before: _Within, batches: int, loss_sum: torch.Tensor, images: int) -> _Within:
        """What was before with this worker's and the others' sums since; collective."""
        sums = sum_over_workers(torch.stack((loss_sum, loss_sum.new_tensor(float(images)))), self._job.where).tolist()
        # What every worker did counts once.
        times = 1 if self._exchanges else self._job.where.world_size
        return _Within(batches, before.loss_sum + sums[0] / times, before.images + round(sums[1] / times))

    def _update(self) -> None:
        self._stepper.set_rate(self._factor(self._step))
        self._stepper.update()
        self._step += 1
        if self._average is not None:
            self._average.update()

    def _validate(self) -> Score:
        """The first worker's score: rounding may differ between machines, and all have to decide alike."""
        self._learner.network.eval()
        with self._averaged():
            score = self._learner.validate()
        names = sorted(score.metrics)
        given = [score.value, score.loss, *(score.metrics[name] for name in names)]
        value, loss, *metrics = as_first(given, self._job.where, self._job.compute.device)
        return Score(value, loss, dict(zip(names, metrics, strict=True)))

    def _keep(self, score: Score, epoch: int) -> None:
        with self._averaged():
            self._best, self._best_epoch, self._best_state = score, epoch, self._copied()

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._average is None else self._average.applied()

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._learner.network.state_dict().items()}

    def _reason_to_stop(self, score: Score, epoch: int, *, out_of_time: bool) -> StopReason | None:
        if is_reached(self._job.spec.stop, score):
            return StopReason.TARGET_SCORE
        if out_of_time or self._budget.out_of_time(self._job.compute.device):
            return StopReason.MAX_DURATION
        # Stages that are still to come get their chance first, and as many epochs as the others.
        waited = epoch - max(self._best_epoch, self._layers.complete_from - 1)
        if epoch < self._epochs and out_of_patience(self._job.spec.stop, waited):
            return StopReason.EARLY_STOPPING
        return None

    def _diverged(self, epoch: int) -> None:
        self._job.on_log(f"training diverged in epoch {epoch}: the loss is no finite number")
        self._notes["diverged"] = f"in epoch {epoch}; what was best before is kept"
        self._stop = StopReason.EARLY_STOPPING

    def _tell(self, epoch: int, *, train_loss: float, score: Score, rate: float) -> None:
        report = EpochReport(
            epoch=epoch,
            epochs=self._epochs,
            phase=self._phase,
            train_loss=train_loss,
            val_loss=score.loss,
            score=score.value,
            metrics=dict(score.metrics),
            learning_rate=self._stepper.rate,
            images_per_s=rate,
            eta_s=self._left_s(epoch),
        )
        self._history.append(report)
        self._job.on_epoch(report)

    def _left_s(self, epoch: int) -> float:
        """Seconds of training to come after an epoch, by what this attempt's took."""
        train_s = self._trained_s / self._trained_epochs
        others_s = time.perf_counter() - self._started - self._trained_s
        epoch_s = train_s + others_s / max(math.ceil(self._trained_epochs), 1)
        ahead_s = self._ahead(train_s, epoch_s - train_s) if self._ahead is not None else 0.0
        return min(epoch_s * (self._epochs - epoch) + ahead_s, self._budget.left_s)

    def _choose_rate(self) -> float:
        if not self._job.spec.find_learning_rate:
            return self._job.spec.learning_rate
        self._job.on_phase("finding the learning rate", 0, 0)
        found = find_learning_rate(self._learner, self._job, self._layers, size=self._size, exchanges=self._exchanges)
        rate = self._job.spec.learning_rate if found is None else found
        said = f"{rate:.3g}" if found is not None else f"not found: the loss never fell; {rate:.3g} as the spec says"
        self._notes["learning_rate"] = said
        self._job.on_log(f"learning rate: {said}")
        return rate

    # --- checkpoints ---

    def _save(self, epoch: int) -> None:
        when = self._job.spec.checkpoints
        if when.every_epochs == 0 and when.every_s == 0:
            return
        due = epoch % when.every_epochs == 0 if when.every_epochs else False
        if when.every_s > 0:
            due = self._waited(when.every_s)
        if due or self._stop is not None or epoch == self._epochs:
            self._store(epoch, _Within())

    def _due_within_epoch(self) -> bool:
        """Whether the first worker's clock wants a checkpoint before the epoch ends; collective, the same on each.

        Whole batches on every worker are those of cached features, an epoch of which takes no time to speak of.
        """
        every_s = self._job.spec.checkpoints.every_s
        several = self._job.where.world_size > 1
        if every_s == 0 or (several and self._replicated) or self._job.checkpoints is None:
            return False
        due = self._job.where.rank == 0 and self._waited(every_s)
        return any_worker(due, self._job.where, self._job.compute.device)

    def _waited(self, every_s: float) -> bool:
        return time.perf_counter() - self._saved >= every_s

    def _store(self, epoch: int, within: _Within) -> None:
        began = time.perf_counter()
        if self._job.checkpoints is not None and self._job.where.rank == 0:
            self._job.checkpoints.save(self._checkpoint(epoch, within))
        self._saved = time.perf_counter()
        self._saved_s += self._saved - began

    def _checkpoint(self, epoch: int, within: _Within) -> Checkpoint:
        meta: dict[str, Any] = {
            **self._before.to_meta(),
            "step": self._step,
            "within": dataclasses.asdict(within),
            "learning_rate": self._learning_rate,
            "spent_s": self._budget.spent_s,
            "best": score_to_json(self._best),
            "best_epoch": self._best_epoch,
            "history": [report_to_json(report) for report in self._history],
            "scaler": self._stepper.scaler.state_dict(),
            "stop": None if self._stop is None else self._stop.value,
            "notes": self._notes,
        }
        tensors = {
            **self._before.to_tensors(),
            **prefixed(self._learner.network.state_dict(), "network/"),
            **prefixed(self._best_state, "best/"),
            **optimizer_tensors(self._stepper.optimizer, "optimizer/"),
        }
        if self._average is not None:
            tensors |= prefixed(self._average.average.state_dict(), "average/")
        steps = within.batches // self._job.spec.accumulation_steps
        return Checkpoint(self._phase.value, epoch, meta, tensors, steps)

    def _resume(self, checkpoint: Checkpoint) -> None:
        meta, tensors = checkpoint.meta, checkpoint.tensors
        self._learner.network.load_state_dict(part(tensors, "network/"))
        self._best_state = part(tensors, "best/")
        load_optimizer(self._stepper.optimizer, part(tensors, "optimizer/"))
        if self._average is not None:
            self._average.average.load_state_dict(part(tensors, "average/"))
        if meta["scaler"]:
            self._stepper.scaler.load_state_dict(dict(meta["scaler"]))
        self._before = read_before(checkpoint)
        self._step, self._done = int(meta["step"]), checkpoint.epoch
        self._within = _Within(**meta.get("within", {}))
        self._best, self._best_epoch = score_from_json(meta["best"]), int(meta["best_epoch"])
        self._history = [report_from_json(report) for report in meta["history"]]
        self._stop = None if meta["stop"] is None else StopReason(meta["stop"])
        self._notes = {**self._notes, **meta["notes"]}
        after = f"epoch {checkpoint.epoch}" + (f" and {checkpoint.step} steps" if checkpoint.step else "")
        self._job.on_log(f"going on after {after} of {self._phase.value}")
