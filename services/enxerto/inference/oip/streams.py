"""A stream of requests answered side by side, the answers in the order of the requests."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")


async def answered_in_order(
    requests: AsyncIterable[Request], answer: Callable[[Request], Awaitable[Response]], width: int
) -> AsyncIterator[Response]:
    """Answer up to `width` requests at once, so that those of one caller share batches too.

    No more are read while so many are unanswered. Closing the iterator cancels what is under way.

    Args:
        requests: as they arrive.
        answer: does not raise for a request that fails: it returns the answer that says so.
        width: requests under way at once.
    """
    room = asyncio.Semaphore(width)
    running: asyncio.Queue[asyncio.Future[Response] | None] = asyncio.Queue()
    started: set[asyncio.Future[Response]] = set()

    async def read() -> None:
        try:
            await room.acquire()
            async for request in requests:
                task = asyncio.ensure_future(answer(request))
                started.add(task)
                running.put_nowait(task)
                await room.acquire()
        finally:
            running.put_nowait(None)

    reader: asyncio.Future[None] = asyncio.ensure_future(read())
    try:
        while (task := await running.get()) is not None:
            response = await task
            started.discard(task)
            room.release()
            yield response
        await reader
    finally:
        reader.cancel()
        for task in started:
            task.cancel()
        await asyncio.gather(reader, *started, return_exceptions=True)
