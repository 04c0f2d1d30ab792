"""Tells the service how a run goes, without holding up the training loop."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from enxerto.kernel.errors import UnavailableError
from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.domain import TUNING, CheckpointSaved, EpochCompleted, JobBody, LogLine, Metric, Progress
from enxerto.vision.torch.progress import EpochReport, Phase, StepReport
from enxerto.vision.torch.recipe import Checkpoint

logger = logging.getLogger(__name__)

_PHASES: Final = {
    Phase.FEATURES: "features",
    Phase.LINEAR_PROBE: "head",
    Phase.TRAIN: "training",
    Phase.FINE_TUNE: TUNING,
}
_SHARE_BETWEEN: Final = 0.01
"""Time between two reports of progress in one phase, as a share of the time that the attempt has taken."""
_MOST_BETWEEN_S: Final = 10.0


class Reporter:
    """Writes to a job's log from a thread of its own, in order. Rank 0 alone reports; the others have nothing to say.

    Args:
        log: the attempt's log.
        workers: how many workers share the images; a step report counts one worker's.
        image_count: images of the training split.
        seconds: a clock that only goes forward.
    """

    def __init__(
        self,
        log: EventLogWriter,
        workers: int,
        image_count: int = 0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._begin = seconds()
        self._told: tuple[str, float] | None = None
        self._log = log
        self._workers = workers
        self.image_count = image_count
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._last: Future[None] | None = None
        self._epoch: tuple[Phase, int, int] | None = None
        self._end: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def send(self, body: JobBody) -> None:
        """Queue one entry; a failure of an earlier one is raised here, unless that was only where the run stood."""
        if self._last is not None and self._last.done():
            self._last.result()
        self._last = self._pool.submit(self._write, body)

    def _write(self, body: JobBody) -> None:
        try:
            self._log.append(body)
        except UnavailableError as error:
            if not isinstance(body, Progress):
                raise
            logger.warning("progress was not told: %s", error.message)

    def flush(self) -> None:
        """Wait until everything is written."""
        if self._last is not None:
            self._last.result()

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """A phase that is not training has begun or advanced."""
        self._progress(Progress(name, images_done=done, image_count=total))

    def _progress(self, progress: Progress) -> None:
        """Tell of every phase, and within one the less often the longer the attempt goes on: every entry is kept."""
        now = self._seconds()
        between_s = min((now - self._begin) * _SHARE_BETWEEN, _MOST_BETWEEN_S)
        if self._told and self._told[0] == progress.phase and now - self._told[1] < between_s:
            return
        self._told = progress.phase, now
        self.send(progress)

    def log(self, message: str) -> None:
        """Something that a person should know."""
        self.send(LogLine("INFO", message))

    def warn(self, message: str) -> None:
        """The same of what is not as it should be."""
        self.send(LogLine("WARNING", message))

    def checkpoint(self, checkpoint: Checkpoint, size_bytes: int) -> None:
        """A checkpoint is stored."""
        phase = _PHASES.get(Phase(checkpoint.phase), checkpoint.phase)
        self.send(CheckpointSaved(phase, checkpoint.epoch, size_bytes, checkpoint.step))

    def step(self, report: StepReport) -> None:
        """Workers advanced within an epoch or a pass."""
        known = self._epoch if self._epoch and self._epoch[0] is report.phase else None
        steps = report.steps
        self._progress(
            Progress(
                _PHASES[report.phase],
                epoch=known[1] if known else 0,
                epoch_count=known[2] if known else 0,
                images_done=report.done * self._workers,
                image_count=report.total * self._workers,
                images_per_second=report.images_per_s * self._workers,
                # Within an epoch a step knows only the epoch's rest; the rest of the run is what is asked.
                eta_s=report.eta_s if report.phase is Phase.FEATURES else self._left_s(),
                step=steps.done if steps else 0,
                step_count=steps.total if steps else 0,
                learning_rate=steps.learning_rate if steps else 0.0,
            )
        )

    def _left_s(self) -> float | None:
        """Seconds until training should end, as the last epoch told; None before the first."""
        return None if self._end is None else max(self._end - self._seconds(), 0.0)

    def epoch(self, report: EpochReport) -> None:
        """An epoch ended."""
        self._epoch = (report.phase, report.epoch, report.epochs)
        self._end = self._seconds() + report.eta_s
        measured = [Metric(name, value, "val") for name, value in report.metrics.items() if name != "loss"]
        self.send(
            EpochCompleted(
                Progress(
                    _PHASES[report.phase],
                    epoch=report.epoch,
                    epoch_count=report.epochs,
                    images_done=self.image_count,
                    image_count=self.image_count,
                    images_per_second=report.images_per_s,
                    eta_s=report.eta_s,
                ),
                (Metric("loss", report.train_loss, "train"), Metric("loss", report.val_loss, "val"), *measured),
                report.learning_rate,
            )
        )
