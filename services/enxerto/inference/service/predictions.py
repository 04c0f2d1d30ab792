"""Use cases of requests: images in, answers out."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from enxerto.inference.domain import (
    MAX_ITEMS,
    ItemRefusal,
    Payload,
    PayloadKind,
    PictureAnswer,
    Prediction,
    ServableVersion,
)
from enxerto.inference.errors import (
    DeploymentNotReadyError,
    ItemsRefusedError,
    TaskMismatchError,
    VersionNotFoundError,
)
from enxerto.inference.ports import Meter
from enxerto.inference.service.routing import Route, Router
from enxerto.kernel.errors import Violation
from enxerto.kernel.names import DeploymentName
from enxerto.vision.specs import Task


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may hold."""

    max_items: int = MAX_ITEMS
    """Images."""
    max_image_bytes: int = 24 * 2**20
    """Bytes of one encoded image."""
    timeout_s: float = 30.0
    """How long a request without a deadline may take."""
    max_answer_bytes: int = 31 * 2**20
    """Bytes of the answers to one request."""


class Predictions:
    """Answers requests by the version that serves at that moment."""

    def __init__(self, router: Router, limits: RequestLimits, meter: Meter) -> None:
        self._router = router
        self._limits = limits
        self._meter = meter

    @property
    def max_items(self) -> int:
        """Images that one request may hold."""
        return self._limits.max_items

    def serving(self, name: DeploymentName, number: int | None = None) -> ServableVersion:
        """The version that answers now.

        Args:
            name: the deployment.
            number: the version that the caller insists on, if any.

        Raises:
            DeploymentNotFoundError, DeploymentNotReadyError: see `Router.find`.
            VersionNotFoundError: another version serves.
        """
        return self._route(name, number).version

    def ready(self, name: DeploymentName, number: int | None = None) -> bool:
        """Whether the deployment answers, with the version that the caller insists on, if any."""
        route = self._router.get(name)
        return route is not None and bool(route.endpoints) and (number is None or route.version.name.number == number)

    async def answer(
        self,
        name: DeploymentName,
        payload: Payload,
        item_field: str,
        timeout_s: float | None,
        *,
        number: int | None = None,
        task: Task | None = None,
    ) -> Prediction:
        """Answer images.

        Args:
            name: the deployment.
            payload: encoded images, or a tensor that was checked against `serving`.
            item_field: how a violation names an image; `{}` is its position.
            timeout_s: what is left of the caller's deadline; None when it has none.
            number: the version that the caller insists on, if any.
            task: what the caller expects the deployment to do, if anything.

        Raises:
            ItemsRefusedError: names every image that cannot be read, or whose answer would be too much.
            TaskMismatchError: the deployment does something else.
            DeploymentNotFoundError, DeploymentNotReadyError, VersionNotFoundError: see `serving`.
            QueueFullError, ReplicasUnavailableError: see `Batcher.submit`.
        """
        route = self._route(name, number)
        if task is not None and route.version.task is not task:
            raise TaskMismatchError(name, route.version.task, task)
        if payload.kind is PayloadKind.ENCODED:
            self._refuse(self._unfit(payload.parts), item_field)
        self._refuse(self._beyond(payload, route.version), item_field)
        limit = self._limits.timeout_s
        share = await route.submit(payload, limit if timeout_s is None else min(timeout_s, limit))
        self._refuse(share.refusals, item_field)
        self._refuse(self._oversized(share.pictures), item_field)
        self._meter.images_answered(payload.kind, payload.items)
        return Prediction(route.version, share.tensors, share.pictures, payload.items, share.timing)

    def _unfit(self, images: Sequence[bytes]) -> list[ItemRefusal]:
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
        fitting = max(1, self._limits.max_answer_bytes // version.answer_bytes(*payload.sides))
        text = f"the answer would be too large: send at most {fitting} images of this size in one request"
        return [ItemRefusal(index, "ANSWER_TOO_LARGE", text) for index in range(fitting, payload.items)]

    def _oversized(self, pictures: Sequence[PictureAnswer]) -> list[ItemRefusal]:
        """The pictures whose answers do not fit the message any more; how large they are shows only now."""
        limit = self._limits.max_answer_bytes
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

    def _route(self, name: DeploymentName, number: int | None) -> Route:
        route = self._router.find(name)
        if number is not None and route.version.name.number != number:
            full = f"{route.version.name.parent}/versions/{number}"
            raise VersionNotFoundError(full, f"version {number} does not serve; {route.version.name} does")
        if not route.endpoints:
            raise DeploymentNotReadyError(f"no replica of {name} is up; they are being started", retry_after_s=2.0)
        return route
