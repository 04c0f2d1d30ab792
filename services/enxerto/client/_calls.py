"""What the calls to all resources share."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from enxerto.client import _converters
from enxerto.client._channel import call
from enxerto.client._errors import DataLossError
from enxerto.client._names import Names
from enxerto.client._results import Progress
from enxerto.client._stubs import Stubs
from enxerto.training.v1 import training_run_pb2

T = TypeVar("T")

Uploaded = Callable[[int, int], None]
"""Is told the bytes sent and the bytes in all."""

Progressed = Callable[[Progress], None]
"""Is told how far the service is."""


class Calls:
    """One client's connections, names and deadline."""

    def __init__(self, stubs: Stubs, names: Names, timeout_s: float) -> None:
        self._stubs = stubs
        self._names = names
        self._timeout_s = timeout_s

    def _call(self, send: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        return call(send, request, timeout_s=timeout_s or self._timeout_s)

    def _pages(self, send: Callable[..., Any], request: Any, field: str, limit: int | None) -> Iterator[Any]:
        left = limit
        while left is None or left > 0:
            request.page_size = min(left or 200, 200)
            page = self._call(send, request)
            items = getattr(page, field)
            yield from items
            left = None if left is None else left - len(items)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _measured(
        self, send: Callable[..., Any], request: Any, field: str, progressed: Progressed | None, timeout_s: float
    ) -> Any:
        """The `field` that a stream ends with, after its progress; asked again when the service was away."""

        def read(request: Any, **options: Any) -> Any:
            found = None
            for message in send(request, **options):
                if message.WhichOneof("result") == field:
                    found = getattr(message, field)
                elif progressed:
                    progressed(_progress(message.progress))
            return found

        found = call(read, request, timeout_s=timeout_s)
        if found is None:
            raise DataLossError(f"the stream ended without its {field}", code="DATA_LOSS", reason="STREAM_ENDED")
        return found


def _progress(message: Any) -> Progress:
    if isinstance(message, training_run_pb2.Progress):
        return _converters.progress(message)
    return Progress("checking", 0, 0, message.images_done, message.image_count, 0.0, None)
