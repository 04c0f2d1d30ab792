"""One version of one deployment: its replicas, its queue, and which replica takes a call."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Self

from enxerto.inference.domain import BatchAnswer, Endpoint, Payload, PayloadKind, ServableVersion
from enxerto.inference.errors import GoldenMismatchError, NoRoomError, ReplicasUnavailableError, VersionNotServableError
from enxerto.inference.ports import Meter, Replicas
from enxerto.inference.service.batching import Batcher, BatchLimits, Share
from enxerto.kernel.errors import EnxertoError, FailedPreconditionError
from enxerto.kernel.names import DeploymentName
from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.onnx.golden import Golden
from enxerto.vision.specs import Task, TensorSpec

logger = logging.getLogger(__name__)

_WARM_UP_S = 20.0
_MAX_ANSWER_BYTES = 128 * 2**20


class Route:
    """One version of one deployment with its replicas and its queue; entered by every request that it may answer."""

    def __init__(
        self,
        deployment: DeploymentName,
        version: ServableVersion,
        replicas: Replicas,
        *,
        batches: BatchLimits,
        meter: Meter,
        on_failure: Callable[[], None],
    ) -> None:
        self.version = version
        self.endpoints: tuple[Endpoint, ...] = ()
        self._replicas = replicas
        self._meter = meter
        self._on_failure = on_failure
        self._turn = itertools.count()
        self._deployment = deployment
        self._batches = batches
        self._batcher = Batcher(deployment, self._send, _bounded(batches, version), meter)
        self._earlier: list[Batcher] = []
        self._joining: dict[Endpoint, asyncio.Task[None]] = {}
        self._refused: frozenset[Endpoint] = frozenset()
        """Replicas that failed their trial."""
        self._holders = 0
        self._free = asyncio.Event()
        self._free.set()

    def connect(self, endpoints: Sequence[Endpoint]) -> None:
        """Use these replicas from now on."""
        endpoints = tuple(sorted(endpoints))
        if endpoints != self.endpoints:
            self.endpoints = endpoints
            self._batcher.scale(len(endpoints))

    def follow(self, endpoints: Collection[Endpoint], trial: Callable[[Endpoint], Awaitable[object]]) -> None:
        """Use those of these replicas that are in use already; the others join once they have passed a trial.

        Where none is in use they do not wait for it, but for those that have failed it: an answer by a replica that was
        not tried is better than none.
        """
        self._refused &= frozenset(endpoints)
        staying = set(self.endpoints) & set(endpoints)
        if not staying:
            self.connect([endpoint for endpoint in endpoints if endpoint not in self._refused])
            return
        self.connect(list(staying))
        for endpoint in set(endpoints) - staying - self._joining.keys():
            self._joining[endpoint] = asyncio.ensure_future(self._join(endpoint, trial))

    async def _join(self, endpoint: Endpoint, trial: Callable[[Endpoint], Awaitable[object]]) -> None:
        try:
            await trial(endpoint)
        except EnxertoError as error:
            wrong = isinstance(error, FailedPreconditionError)
            if wrong:
                self._refused |= {endpoint}
            if wrong or isinstance(error, ReplicasUnavailableError):
                self._meter.replica_failed()
            extra = {"endpoint": endpoint.address, "version": str(self.version.name), "error": error.message}
            logger.warning("a replica was not let in", extra=extra)
        except Exception:
            self._refused |= {endpoint}
            self._meter.replica_failed()
            extra = {"endpoint": endpoint.address, "version": str(self.version.name)}
            logger.exception("a replica could not be tried", extra=extra)
        else:
            self._refused -= {endpoint}
            self.connect([*{*self.endpoints, endpoint}])
        finally:
            del self._joining[endpoint]

    def takes(self, payload: Payload) -> bool:
        """Whether the graph can answer a request that another version can."""
        if EMBEDDING.name in payload.outputs and self.version.embedding_dimension is None:
            return False
        return payload.kind is not PayloadKind.TENSOR or self.version.takes((payload.items, 3, *payload.sides))

    @property
    def gathering(self) -> BatchLimits:
        """How requests are gathered now."""
        return _bounded(self._batches, self.version)

    def gather_by(self, batches: BatchLimits) -> None:
        """Gather later requests by these limits; those that wait are answered by the ones before."""
        if batches == self._batches:
            return
        self._batches = batches
        self._earlier = [batcher for batcher in self._earlier if not batcher.idle] + [self._batcher]
        self._batcher = Batcher(self._deployment, self._send, _bounded(batches, self.version), self._meter)
        self._batcher.scale(len(self.endpoints))

    def __enter__(self) -> Self:
        """Keep the version for a request that may still be submitted to it."""
        self._holders += 1
        self._free.clear()
        return self

    def __exit__(self, *_: object) -> None:
        """The request has been answered."""
        self._holders -= 1
        if not self._holders:
            self._free.set()

    async def submit(self, payload: Payload, timeout_s: float) -> Share:
        """Answer one request; see `Batcher.submit`."""
        return await self._batcher.submit(payload, timeout_s)

    async def warm_up(self, batch_sizes: Sequence[int], *, whole: bool) -> None:
        """Send batches of blank images to each replica by the way that requests take.

        Args:
            batch_sizes: images in each of them.
            whole: whether every replica has to answer; else those that cannot be reached are not used.

        Raises:
            ReplicasUnavailableError: a replica that has to does not answer, or none does.
            VersionNotServableError: the graph is not what the registry says.
        """
        row = self.version.warm_up_row
        blank = bytes(4 * row[0] * row[1] * row[2])

        async def ask(endpoint: Endpoint) -> None:
            for size in batch_sizes:
                payload = Payload(PayloadKind.TENSOR, (blank,) * size, size, row)
                self._check(await self._replicas.predict(endpoint, self.version.name, [payload], _WARM_UP_S))

        await self._ask_each(ask, whole=whole)

    async def replay(self, golden: Golden, *, whole: bool) -> None:
        """Send golden inputs through each replica and hold its answers against those that were registered.

        Args:
            golden: inputs, and answers to them.
            whole: as for `warm_up`.

        Raises:
            ReplicasUnavailableError: a replica that has to does not answer, or none does.
            VersionNotServableError: the inputs do not fit the graph.
            GoldenMismatchError: a replica answers otherwise.
        """
        count, *row = golden.pixels.shape
        if not self.version.takes((count, *row)):
            raise VersionNotServableError(self.version.name, "has golden inputs that do not fit its graph")
        content = await asyncio.to_thread(lambda: golden.images.astype("<f4").tobytes())
        payload = Payload(PayloadKind.TENSOR, (content,), count, tuple(row))

        async def ask(endpoint: Endpoint) -> None:
            answer = await self._replicas.predict(endpoint, self.version.name, [payload], _WARM_UP_S)
            found = await asyncio.to_thread(golden.agreement, {one.name: one.values for one in answer.tensors})
            if found < golden.least:
                raise GoldenMismatchError(self.version.name, found, golden.least)

        await self._ask_each(ask, whole=whole)

    async def _ask_each(self, ask: Callable[[Endpoint], Awaitable[None]], *, whole: bool) -> None:
        """Ask every replica, and go on with those that answered. What one answers wrongly is no other's to mend."""
        outcomes = await asyncio.gather(*map(ask, self.endpoints), return_exceptions=True)
        failures = [outcome for outcome in outcomes if outcome is not None]
        wrong = [failure for failure in failures if not isinstance(failure, ReplicasUnavailableError)]
        if wrong or (failures and (whole or len(failures) == len(outcomes))):
            raise (wrong or failures)[0]
        self.connect([end for end, outcome in zip(self.endpoints, outcomes, strict=True) if outcome is None])

    async def drained(self) -> None:
        """Wait until no request holds it, is queued or in flight. No new one may come: it is in no split any more."""
        await self._free.wait()
        for batcher in (*self._earlier, self._batcher):
            await batcher.drained()

    def _check(self, answer: BatchAnswer) -> None:
        """Hold what the graph gave for one image against what the registry says of it."""
        version = self.version
        found = [TensorSpec(tensor.name, tensor.datatype, (-1, *tensor.row_shape)) for tensor in answer.tensors]
        declared = [(spec.name, spec.datatype) for spec in version.outputs]
        if [(spec.name, spec.datatype) for spec in found] != declared or not all(
            _agree(ours.shape, theirs.shape) for ours, theirs in zip(found, version.outputs, strict=True)
        ):
            raise VersionNotServableError(version.name, f"has a graph that gives {found}, not {list(version.outputs)}")
        classes = found[0].shape[-1]
        if version.task is Task.CLASSIFICATION and classes != len(version.labels):
            text = f"has a graph of {classes} classes and a label map of {len(version.labels)}"
            raise VersionNotServableError(version.name, text)

    async def _send(self, payloads: Sequence[Payload], timeout_s: float) -> BatchAnswer:
        """Try one replica, and each other one when it is gone: a prediction may be repeated."""
        deadline = time.monotonic() + timeout_s
        gone: set[Endpoint] = set()
        for attempt in range(max(2, len(self.endpoints))):
            # A single one is tried twice, for it may have closed the connection and nothing else.
            left = [endpoint for endpoint in self.endpoints if endpoint not in gone] or self.endpoints
            if not left:
                break
            endpoint = left[next(self._turn) % len(left)]
            try:
                return await self._replicas.predict(
                    endpoint, self.version.name, payloads, max(deadline - time.monotonic(), 0.001)
                )
            except NoRoomError:
                # It has waited for room already; the next replica would let go what is used more.
                self._meter.dropped("no_room")
                raise
            except ReplicasUnavailableError as error:
                gone.add(endpoint)
                self._meter.replica_failed()
                self._on_failure()
                extra = {"endpoint": endpoint.address, "version": str(self.version.name), "attempt": attempt}
                logger.warning("replica failed", extra={**extra, "error": error.message})
                if time.monotonic() >= deadline:
                    break
        self._meter.dropped("unavailable")
        self._on_failure()
        raise ReplicasUnavailableError(f"no replica of {self.version.name} answers now", retry_after_s=1.0)


def _bounded(batches: BatchLimits, version: ServableVersion) -> BatchLimits:
    """Batches whose answers travel in one message."""
    fitting = max(1, _MAX_ANSWER_BYTES // version.answer_bytes(version.height, version.width))
    items = min(batches.max_items, fitting)
    sizes = tuple(size for size in batches.preferred_sizes if size <= items)
    return replace(batches, max_items=items, preferred_sizes=sizes)


def _agree(found: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    """Whether a shape is one that was declared, where -1 is any size."""
    return len(found) == len(declared) and all(
        theirs in (-1, ours) for ours, theirs in zip(found[1:], declared[1:], strict=True)
    )
