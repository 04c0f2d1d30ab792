"""Many requests of one stream at once, and their answers in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def in_order(
    requests: AsyncIterable[Request], answer: Callable[[Request], Awaitable[Answer]], most: int
) -> AsyncGenerator[Answer, None]:
    """The answers in the order of the requests, each as soon as those before it were taken.

    A request is read only when fewer than `most` are under way or wait to be taken, so that whoever sends too fast is
    held back by the transport. When the reader stops, what is under way is cancelled.

    Args:
        requests: read one by one.
        answer: of one request; what it raises ends the stream.
        most: requests at once.
    """
    free = asyncio.Semaphore(most)
    under_way: asyncio.Queue[asyncio.Future[Answer] | None] = asyncio.Queue()

    async def read() -> None:
        source = aiter(requests)
        try:
            while True:
                await free.acquire()
                try:
                    request = await anext(source)
                except StopAsyncIteration:
                    return
                under_way.put_nowait(asyncio.ensure_future(answer(request)))
        finally:
            under_way.put_nowait(None)

    reading = asyncio.ensure_future(read())
    head: asyncio.Future[Answer] | None = None
    try:
        while (head := await under_way.get()) is not None:
            yield await head
            free.release()
        await reading
    finally:
        left: list[asyncio.Future[Any]] = [reading, *([head] if head else [])]
        while not under_way.empty():
            if (waiting := under_way.get_nowait()) is not None:
                left.append(waiting)
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)
