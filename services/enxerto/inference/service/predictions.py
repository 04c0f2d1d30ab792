"""Use cases of requests: images in, answers out."""

import asyncio
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from enxerto.inference.domain import (
    MAX_ITEMS,
    Bytes,
    ItemRefusal,
    Payload,
    PayloadKind,
    PictureAnswer,
    Prediction,
    ServableVersion,
    Timing,
)
from enxerto.inference.errors import (
    DeploymentNotReadyError,
    ItemsRefusedError,
    ModelTooLargeError,
    NoEmbeddingError,
    NoRoomError,
    QueueFullError,
    ReplicasUnavailableError,
    TaskMismatchError,
    VersionNotFoundError,
    VersionNotServableError,
)
from enxerto.inference.ports import Meter
from enxerto.inference.service.batching import BatchLimits, Share
from enxerto.inference.service.caching import ResponseCaches, digest_of
from enxerto.inference.service.observation import Observer, in_full
from enxerto.inference.service.rates import ProjectRates
from enxerto.inference.service.routes import Route
from enxerto.inference.service.routing import Router, Split, Wanted
from enxerto.inference.service.shadowing import Shadowing
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import Violation
from enxerto.kernel.names import DeploymentName, VersionName
from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.specs import Task

_CANARY_FAILURES = (
    ReplicasUnavailableError,
    QueueFullError,
    NoRoomError,
    ModelTooLargeError,
    VersionNotServableError,
)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may hold."""

    max_items: int = MAX_ITEMS
    """Images."""
    max_image_bytes: int = 24 * 2**20
    """Bytes of one encoded image."""
    timeout_s: float = 30.0
    """How long a request may take that has no limit of its own."""
    max_content_bytes: int = 31 * 2**20
    """Bytes of the answers to one request, and of its tensors."""
    stream_requests: int = 16
    """Requests of one stream that are worked on at once."""


class Predictions:
    """Answers requests by the version that serves at that moment."""

    def __init__(
        self,
        router: Router,
        limits: RequestLimits,
        meter: Meter,
        clock: Clock,
        *,
        rates: ProjectRates,
        shadowing: Shadowing,
        observer: Observer,
        caches: ResponseCaches,
    ) -> None:
        self._router = router
        self._limits = limits
        self._meter = meter
        self._rates = rates
        self._shadowing = shadowing
        self._clock = clock
        self._observer = observer
        self._caches = caches

    @property
    def max_items(self) -> int:
        """Images that one request may hold."""
        return self._limits.max_items

    def always_fitting(self, version: ServableVersion) -> int:
        """Images that one request may hold of any form and size: as float32 they and their answers fit a message."""
        largest = max(version.input_bytes, version.answer_bytes(version.height, version.width))
        return max(1, min(self._limits.max_items, self._limits.max_content_bytes // largest))

    @property
    def stream_requests(self) -> int:
        """Requests of one stream that are worked on at once."""
        return self._limits.stream_requests

    def answering(self) -> dict[DeploymentName, frozenset[VersionName]]:
        """The versions of every deployment that get requests, or copies of them."""
        return self._router.versions()

    def serving(self, name: DeploymentName, wanted: Wanted | None = None) -> ServableVersion:
        """The version that answers now.

        Args:
            name: the deployment.
            wanted: the version that the caller insists on, if any.

        Raises:
            DeploymentNotFoundError, DeploymentNotReadyError: see `Router.find`.
            VersionNotFoundError: that version is not up.
        """
        return self._route(self._router.find(name), wanted).version

    def remembers(self, name: DeploymentName) -> bool:
        """Whether answers of the deployment are kept to be given again; see `Router.find`."""
        return self._router.find(name).cache_bytes > 0

    def gathering(self, name: DeploymentName, wanted: Wanted | None = None) -> BatchLimits:
        """How the requests for that version are gathered into calls; see `serving`."""
        return self._route(self._router.find(name), wanted).gathering

    def ready(self, name: DeploymentName, wanted: Wanted | None = None) -> bool:
        """Whether the deployment answers, with the version that the caller insists on, if any."""
        split = self._router.get(name)
        if split is None:
            return False
        route = split.main if wanted is None else split.find(wanted)
        return route is not None and bool(route.endpoints)

    async def answer(
        self,
        name: DeploymentName,
        payload: Payload,
        item_field: str,
        timeout_s: float | None,
        *,
        wanted: Wanted | None = None,
        task: Task | None = None,
        sticky_key: str = "",
    ) -> Prediction:
        """Answer images.

        Args:
            name: the deployment.
            payload: encoded images, or a tensor that was checked against `serving`.
            item_field: how a violation names an image; `{}` is its position.
            timeout_s: what the caller allows for this request; None leaves it to the service.
            wanted: the version that the caller insists on, if any.
            task: what the caller expects the deployment to do, if anything.
            sticky_key: requests of the same key are answered by the same version; empty leaves it to chance.

        Raises:
            ItemsRefusedError: names every image that cannot be read, or whose answer would be too much.
            TaskMismatchError: the deployment does something else.
            NoEmbeddingError: an embedding is asked for and the graph gives none.
            DeploymentNotFoundError, DeploymentNotReadyError, VersionNotFoundError: see `serving`.
            RateLimitedError: the project's callers send more than it may.
            QueueFullError, NoRoomError, ReplicasUnavailableError: see `Batcher.submit`.
        """
        split = self._router.find(name)
        main = self._route(split, wanted)
        if task is not None and main.version.task is not task:
            raise TaskMismatchError(name, main.version.task, task)
        if EMBEDDING.name in payload.outputs and main.version.embedding_dimension is None:
            raise NoEmbeddingError(main.version.name)
        if payload.kind is PayloadKind.ENCODED:
            self._refuse(self._unfit(payload.parts), item_field)
        self._rates.admit(name.parent, payload.items)
        route = split.choose(payload, sticky_key) if wanted is None else main
        self._refuse(self._beyond(payload, route.version), item_field)
        observed = self._observer.wants(name, route.version, payload.items)
        carried = in_full(payload) if observed else payload
        allowed = self._limits.timeout_s if timeout_s is None else timeout_s
        # Either may be replaced while the content is hashed or the canary is asked.
        with main, route:
            if split.cache_bytes:
                route, share = await self._remembered(name, route, main, carried, allowed)
            else:
                route, share = await self._submit(route, main, carried, allowed)
        self._refuse(share.refusals, item_field)
        self._refuse(self._oversized(share.pictures), item_field)
        self._meter.images_answered(payload.kind, payload.items)
        now, identity = self._clock.now(), os.urandom(8).hex()
        prediction = Prediction(
            route.version, share.tensors, share.pictures, payload.items, share.timing, identity, now
        )
        if observed:
            # Nobody waits for it: the answer goes out first.
            asyncio.get_running_loop().call_soon(self._observer.observe, name, payload, prediction)
        if payload.outputs and len(share.tensors) != len(payload.outputs):
            # What travelled for the observer or for another request of the batch is not this one's.
            asked = tuple(one for one in share.tensors if one.name in payload.outputs)
            prediction = replace(prediction, tensors=asked)
        if route is split.main:
            self._shadowing.offer(split, payload, prediction)
        return prediction

    async def _remembered(
        self, name: DeploymentName, route: Route, main: Route, payload: Payload, timeout_s: float
    ) -> tuple[Route, Share]:
        """Give the answer that is kept, or ask for one and keep it."""
        start = time.monotonic()
        digest = await digest_of(payload)
        kept = self._caches.find(name, route.version.name, digest, payload.outputs)
        lookup_s = time.monotonic() - start
        if kept is not None:
            return route, replace(kept, timing=Timing(0.0, 0.0, 0.0, 0.0, lookup_s, cached=True))
        route, share = await self._submit(route, main, payload, timeout_s - lookup_s)
        everything = share.pictures or len(share.tensors) == len(route.version.outputs)
        self._caches.put(name, route.version.name, digest, () if everything else payload.outputs, share)
        return route, replace(share, timing=replace(share.timing, lookup_s=lookup_s))

    async def _submit(self, route: Route, main: Route, payload: Payload, timeout_s: float) -> tuple[Route, Share]:
        """Ask a version; the main one answers for a canary that is gone, cannot be loaded or has too much to do."""
        if route is main:
            return main, await main.submit(payload, timeout_s)
        start = time.monotonic()
        try:
            return route, await route.submit(payload, timeout_s)
        except _CANARY_FAILURES:
            left = start + timeout_s - time.monotonic()
            if left <= 0:
                raise
            return main, await main.submit(payload, left)

    def _unfit(self, images: Sequence[Bytes]) -> list[ItemRefusal]:
        """What needs no decoding to be refused."""
        limit = self._limits.max_image_bytes
        refusals = []
        for index, image in enumerate(images):
            if not image:
                refusals.append(ItemRefusal(index, "EMPTY_IMAGE", "the image has no bytes"))
            elif len(image) > limit:
                text = f"the image has {len(image)} bytes, the limit is {limit}"
                refusals.append(ItemRefusal(index, "IMAGE_TOO_LARGE", text))
        return refusals

    def _beyond(self, payload: Payload, version: ServableVersion) -> list[ItemRefusal]:
        """The images that make the answer too much. How large those to encoded ones are shows later."""
        if payload.kind is not PayloadKind.TENSOR:
            return []
        fitting = max(1, self._limits.max_content_bytes // version.answer_bytes(*payload.sides))
        if payload.items <= fitting:
            return []
        text = f"the answer would be too large: send at most {fitting} images of this size in one request"
        return [ItemRefusal(index, "ANSWER_TOO_LARGE", text) for index in range(fitting, payload.items)]

    def _oversized(self, pictures: Sequence[PictureAnswer]) -> list[ItemRefusal]:
        """The pictures whose answers do not fit the message any more; how large they are shows only now."""
        if not pictures:
            return []
        limit = self._limits.max_content_bytes
        sizes = itertools.accumulate(picture.size_bytes for picture in pictures)
        text = f"the answers would have more than {limit} bytes: send smaller pictures, or fewer at once"
        return [ItemRefusal(index, "ANSWER_TOO_LARGE", text) for index, size in enumerate(sizes) if size > limit]

    def _refuse(self, refusals: Sequence[ItemRefusal], item_field: str) -> None:
        if refusals:
            self._meter.images_refused(len(refusals))
            raise ItemsRefusedError(
                [Violation(item_field.format(bad.index), f"{bad.reason}: {bad.message}") for bad in refusals],
                [bad.reason for bad in refusals],
            )

    def _route(self, split: Split, wanted: Wanted | None) -> Route:
        route = split.main if wanted is None else split.find(wanted)
        if route is None:
            main = split.main.version.name
            full = wanted if isinstance(wanted, VersionName) else f"{main.parent}/versions/{wanted}"
            raise VersionNotFoundError(str(full), f"{full} is not up; {main} answers")
        if not route.endpoints:
            text = f"no replica of {split.deployment} is up; they are being started"
            raise DeploymentNotReadyError(text, retry_after_s=2.0)
        return route
