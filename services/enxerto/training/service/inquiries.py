"""Questions that a job on the cluster answers. Nothing of them is in the database: the blob store has the answers.

Equal questions of a project share one uid, one job and one answer, also after a restart of this service. A caller who
leaves does not stop the job: it is short, and the answer is there for the next one. Jobs of inquiries do not stand in
the queue of runs; the cluster gives them what is free, and only so many of them exist at once.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from enxerto.training.domain import Inquiry, InquiryKind, JobFailed, Progress
from enxerto.training.errors import InquiriesFullError, JobBrokenError, ServiceStoppingError
from enxerto.training.ports import JobOutput, JobRunner, JobState, StatusDecoder
from enxerto.training.service.signals import Signals

_MAX_ATTEMPTS: Final = 20
"""Jobs that one question may have had in all; beyond it nothing new is tried."""
_DIGEST_DIGITS: Final = 24


class Inquiries:
    """Asks the cluster.

    Args:
        jobs: the cluster.
        output: what jobs write.
        decode: reads what a job says went wrong.
        signals: says when the process drains.
        interval_s: how often the job's log is read.
        poll_s: how often the cluster is asked for the job's state.
        most: jobs at the same time; each is a process on the cluster's head even while it waits for a CPU.
    """

    def __init__(
        self,
        jobs: JobRunner,
        output: JobOutput,
        decode: StatusDecoder,
        signals: Signals,
        *,
        interval_s: float = 0.5,
        poll_s: float = 2.0,
        most: int = 8,
    ) -> None:
        self._jobs = jobs
        self._output = output
        self._decode = decode
        self._signals = signals
        self._interval_s = interval_s
        self._poll_s = poll_s
        self._most = most
        self._open: set[str] = set()

    @staticmethod
    def uid(kind: InquiryKind, document: Mapping[str, object]) -> str:
        """The same for equal questions."""
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:_DIGEST_DIGITS]
        return f"{kind.value}-{digest}"

    async def ask(self, inquiry: Inquiry) -> AsyncIterator[Progress | Mapping[str, Any]]:
        """Progress while the job works, and its answer as the last item; a stored answer comes at once.

        Raises:
            EnxertoError: what the job says went wrong.
            JobBrokenError: it ended without a word.
            InquiriesFullError: too many other questions are being worked on.
            UnavailableError: the cluster cannot be reached.
        """
        attempt, answer = await self._attempt(inquiry)
        if answer is not None:
            yield answer
            return
        job_id = inquiry.job_id(attempt)
        await self._admit(job_id)
        await self._jobs.ask(inquiry, attempt)
        seq, poll = 0, 0.0
        while True:
            over, message = False, ""
            if time.monotonic() >= poll:
                state, message = await self._jobs.state(job_id)
                # Before the log is read: its last words are then surely among what is read.
                over, poll = state.over, time.monotonic() + self._poll_s
            for event in await self._output.read_events(inquiry.uid, attempt, seq):
                seq = event.seq
                if isinstance(event.body, JobFailed):
                    raise self._decode(event.body.error)
                if isinstance(event.body, Progress):
                    yield event.body
            answer = await self._output.read_answer(inquiry.uid, attempt)
            if answer is not None:
                yield answer
                return
            if over:
                raise JobBrokenError(inquiry.kind.value, message)
            if self._signals.stopping:
                raise ServiceStoppingError
            await asyncio.sleep(self._interval_s)

    async def _admit(self, job_id: str) -> None:
        """Count a job in; those whose callers have left count until the cluster says that they are over."""
        if job_id not in self._open and len(self._open) >= self._most:
            for one in tuple(self._open):
                if (await self._jobs.state(one))[0].over:
                    self._open.discard(one)
            if len(self._open) >= self._most:
                raise InquiriesFullError(self._most)
        self._open.add(job_id)

    async def _attempt(self, inquiry: Inquiry) -> tuple[int, Mapping[str, Any] | None]:
        """The attempt to follow or to begin, or the one that has answered."""
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            answer = await self._output.read_answer(inquiry.uid, attempt)
            if answer is not None:
                return attempt, answer
            state, _ = await self._jobs.state(inquiry.job_id(attempt))
            if not state.over:
                return attempt, None
            # A cluster that was restarted has forgotten the job; its log has not.
            if not await self._output.read_events(inquiry.uid, attempt, 0) and state is JobState.UNKNOWN:
                return attempt, None
        raise JobBrokenError(inquiry.kind.value, f"{_MAX_ATTEMPTS} jobs have not answered it")
