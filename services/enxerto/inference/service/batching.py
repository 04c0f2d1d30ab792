"""Gathers the requests of many callers into few calls.

One hop to a replica costs about as much for a batch as for an image. While fewer calls than `concurrency` are in
flight a request need not wait; what arrives meanwhile travels together (the adaptive batching of Clipper, Crankshaw et
al., NSDI 2017, section 4.3, with the load itself as the controller).
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from enxerto.inference.domain import (
    DEFAULT_PRIORITY,
    BatchAnswer,
    ItemRefusal,
    Payload,
    PayloadKind,
    PictureAnswer,
    Tensor,
    Timing,
)
from enxerto.inference.errors import QueueFullError, ReplicasUnavailableError
from enxerto.inference.ports import Meter
from enxerto.kernel.names import DeploymentName

Send = Callable[[Sequence[Payload], float], Awaitable[BatchAnswer]]
"""Carries a batch of one kind to a replica, with a limit in seconds."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large batches and queues grow."""

    max_items: int = 32
    """Images in one call; a larger request travels alone."""
    max_bytes: int = 64 * 2**20
    """Bytes in one call; a larger request travels alone."""
    max_delay_s: float = 0.001
    """How long a request may wait for company while another call is in flight."""
    concurrency: int = 2
    """Calls in flight for each replica: one computes while the next one travels and is decoded."""
    max_queued_items: int = 1024
    """Images that wait; more are refused."""
    max_queued_bytes: int = 512 * 2**20
    """Bytes that wait; more are refused."""
    preferred_sizes: tuple[int, ...] = ()
    """Images in one call, ascending: a call leaves at once with so many, and else waits for it."""
    default_priority: int = DEFAULT_PRIORITY
    """Of requests that do not say."""


@dataclass(frozen=True, slots=True)
class Share:
    """One caller's part of a batch's answer."""

    tensors: tuple[Tensor, ...]
    """The rows of the images that have an answer; or none, and `pictures` instead."""
    pictures: tuple[PictureAnswer, ...]
    """One for each image that has an answer."""
    refusals: tuple[ItemRefusal, ...]
    """Positions count within the caller's own request."""
    timing: Timing


@dataclass(slots=True, eq=False)
class _Waiting:
    payload: Payload
    deadline: float
    arrived: float
    priority: int
    queued: bool = True
    share: "asyncio.Future[Share]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def rank(self) -> tuple[int, float]:
        """The least goes first."""
        return self.priority, self.arrived


class Batcher:
    """The queue of one version of one deployment. Belongs to one event loop."""

    def __init__(self, deployment: DeploymentName, send: Send, limits: BatchLimits, meter: Meter) -> None:
        self._deployment = deployment
        self._send = send
        self._limits = limits
        self._meter = meter
        self._queues: dict[PayloadKind, deque[_Waiting]] = {kind: deque() for kind in PayloadKind}
        self._items = 0
        self._bytes = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._replicas = 1

    def scale(self, replicas: int) -> None:
        """Allow as many calls in flight as so many replicas want."""
        self._replicas = max(1, replicas)
        self._dispatch()

    async def submit(self, payload: Payload, timeout_s: float) -> Share:
        """Wait for the answer to one request.

        Its time over, or the wait cancelled, it leaves the queue at once.

        Raises:
            QueueFullError: too much waits already.
            NoRoomError: a replica of the pool has no room for the model now.
            ReplicasUnavailableError: no replica answered, or not in time.
        """
        limits = self._limits
        if self._items and (
            self._items + payload.items > limits.max_queued_items
            or self._bytes + payload.size_bytes > limits.max_queued_bytes
        ):
            self._meter.dropped("queue_full")
            raise QueueFullError(self._deployment)
        now = time.monotonic()
        waiting = _Waiting(payload, now + timeout_s, now, payload.priority or limits.default_priority)
        self._idle.clear()
        if timeout_s > 0 and not (self._in_flight or self._items or limits.preferred_sizes):
            # Nobody waits, and there is nobody to wait for.
            waiting.queued = False
            self._start([waiting])
        else:
            self._count(payload, 1)
            _enqueue(self._queues[payload.kind], waiting)
            self._dispatch()
        # The loop's clock is the monotonic one.
        timer = asyncio.get_running_loop().call_at(waiting.deadline, self._expire, waiting)
        try:
            return await waiting.share
        finally:
            timer.cancel()
            self._withdraw(waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or in flight."""
        return self._idle.is_set()

    async def drained(self) -> None:
        """Wait until nothing is queued or in flight."""
        await self._idle.wait()

    def _count(self, payload: Payload, sign: int) -> None:
        self._items += sign * payload.items
        self._bytes += sign * payload.size_bytes
        self._meter.queued(sign * payload.items)

    def _dispatch(self) -> None:
        """Start as many calls as may be in flight now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._in_flight) < self._limits.concurrency * self._replicas:
            queue = self._oldest()
            if queue is None:
                break
            count = 0
            if self._limits.preferred_sizes:
                count, delay = self._preferred(queue)
            else:
                delay = self._patience(queue) if self._in_flight else 0.0
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(delay, self._dispatch)
                break
            self._start(self._take(queue, count))
        self._settle()

    def _start(self, batch: list[_Waiting]) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(batch))
        self._in_flight.add(task)
        task.add_done_callback(self._ended)

    def _settle(self) -> None:
        if not self._in_flight and not any(self._queues.values()):
            self._idle.set()

    def _oldest(self) -> deque[_Waiting] | None:
        """The queue whose head goes first, without what nobody waits for any more."""
        now = time.monotonic()
        heads = []
        for queue in self._queues.values():
            while queue and (queue[0].share.done() or queue[0].deadline <= now):
                self._drop(queue.popleft())
            if queue:
                heads.append(queue)
        return min(heads, key=lambda queue: queue[0].rank, default=None)

    def _expire(self, waiting: _Waiting) -> None:
        self._withdraw(waiting)
        if not waiting.share.done():
            waiting.share.set_exception(
                ReplicasUnavailableError("the replica did not answer within the request's time")
            )

    def _withdraw(self, waiting: _Waiting) -> None:
        """Give up what nobody waits for any more, if it has not left yet."""
        if waiting.queued:
            self._queues[waiting.payload.kind].remove(waiting)
            self._drop(waiting)
            self._settle()

    def _drop(self, waiting: _Waiting) -> None:
        waiting.queued = False
        self._count(waiting.payload, -1)
        self._meter.dropped("expired")
        if not waiting.share.done():
            waiting.share.set_exception(ReplicasUnavailableError("the request waited too long for a replica"))

    def _patience(self, queue: deque[_Waiting]) -> float:
        """Seconds that the head may still wait for company; none when the batch is full."""
        if sum(waiting.payload.items for waiting in queue) >= self._limits.max_items:
            return 0.0
        return queue[0].arrived + self._limits.max_delay_s - time.monotonic()

    def _preferred(self, queue: deque[_Waiting]) -> tuple[int, float]:
        """How many requests leave, 0 for all that fit into a call, and the seconds to wait before they do.

        As in Triton's dynamic batcher: the largest batch of a preferred size leaves at once, and so does what can
        grow into none; anything else waits until its head has waited `max_delay_s`, and then all that fits leaves.
        """
        limits, now, head = self._limits, time.monotonic(), queue[0].payload
        if (left := queue[0].arrived + limits.max_delay_s - now) <= 0:
            return 0, 0.0
        best = count = items = size = 0
        for waiting in queue:
            if waiting.share.done() or waiting.deadline <= now:
                continue
            payload = waiting.payload
            items += payload.items
            size += payload.size_bytes
            if count and (items > limits.preferred_sizes[-1] or size > limits.max_bytes or not payload.goes_with(head)):
                return best or count, 0.0
            count += 1
            if items in limits.preferred_sizes:
                best = count
        full = head.alone or items >= limits.preferred_sizes[-1]
        return best, 0.0 if best or full else left

    def _take(self, queue: deque[_Waiting], most: int = 0) -> list[_Waiting]:
        """Take the requests of one call from the queue, so many at most when it is not 0."""
        batch: list[_Waiting] = []
        items = size = 0
        while queue and not (most and len(batch) == most):
            head = queue[0]
            if head.share.done() or head.deadline <= time.monotonic():
                self._drop(queue.popleft())
                continue
            items += head.payload.items
            size += head.payload.size_bytes
            if batch and (items > self._limits.max_items or size > self._limits.max_bytes):
                break
            if batch and not head.payload.goes_with(batch[0].payload):
                break
            batch.append(queue.popleft())
            head.queued = False
            self._count(head.payload, -1)
        return batch

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        self._dispatch()

    async def _carry(self, batch: list[_Waiting]) -> None:
        sent = time.monotonic()
        payloads = [waiting.payload for waiting in batch]
        try:
            # The most patient caller decides: the others are answered when their own time is over.
            answer = await self._send(payloads, max(waiting.deadline for waiting in batch) - sent)
            shares = _shares(batch, sent, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is every caller's answer
            for waiting in batch:
                if not waiting.share.done():
                    waiting.share.set_exception(error)
            self._waited(batch, sent)
            return
        for waiting, share in zip(batch, shares, strict=True):
            if not waiting.share.done():
                waiting.share.set_result(share)
        # The callers go on before it is counted.
        asyncio.get_running_loop().call_soon(self._answered, batch, sent, answer, time.monotonic() - sent)

    def _answered(self, batch: Sequence[_Waiting], sent: float, answer: BatchAnswer, seconds: float) -> None:
        self._waited(batch, sent)
        items = sum(waiting.payload.items for waiting in batch)
        self._meter.batch_answered(batch[0].payload.kind, items, answer, seconds)

    def _waited(self, batch: Sequence[_Waiting], sent: float) -> None:
        for waiting in batch:
            self._meter.waited(sent - waiting.arrived)


def _enqueue(queue: deque[_Waiting], waiting: _Waiting) -> None:
    """Behind everything that is as urgent: for most requests that is the end."""
    place = len(queue)
    while place and queue[place - 1].priority > waiting.priority:
        place -= 1
    queue.insert(place, waiting)


def _shares(batch: Sequence[_Waiting], sent: float, answer: BatchAnswer) -> list[Share]:
    """Cut a batch's answer into the callers' parts."""
    refused = {refusal.index: refusal for refusal in answer.refusals}
    answered = sum(waiting.payload.items for waiting in batch) - len(refused)
    _check_rows(answer, answered)
    if len(batch) == 1:
        return [Share(answer.tensors, answer.pictures, answer.refusals, _timing(batch[0], sent, answer))]
    shares = []
    first = row = 0
    for waiting in batch:
        items = waiting.payload.items
        mine = [refused[index] for index in range(first, first + items) if index in refused] if refused else []
        end = row + items - len(mine)
        shares.append(
            Share(
                tuple(tensor.rows(row, end) for tensor in answer.tensors),
                answer.pictures[row:end],
                tuple(ItemRefusal(bad.index - first, bad.reason, bad.message) for bad in mine),
                _timing(waiting, sent, answer),
            )
        )
        first, row = first + items, end
    return shares


def _timing(waiting: _Waiting, sent: float, answer: BatchAnswer) -> Timing:
    return Timing(sent - waiting.arrived, answer.decode_s, answer.compute_s, answer.encode_s)


def _check_rows(answer: BatchAnswer, answered: int) -> None:
    rows_fit = all(len(tensor.content) == answered * tensor.row_bytes for tensor in answer.tensors)
    whole = rows_fit if answer.tensors else len(answer.pictures) == answered
    if not whole:
        raise RuntimeError("a replica's answer has another number of rows than its batch")
