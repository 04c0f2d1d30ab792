"""Requests of a stream side by side, answers in order."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from enxerto.inference.oip.streams import answered_in_order


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_the_order_is_the_requests_whatever_ends_first_and_no_more_than_the_width_run() -> None:
    running = most = 0
    gates = [asyncio.Event() for _ in range(7)]

    async def answer(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        # The later one of each pair lets the earlier one go.
        if number % 2 == 0 and number + 1 < len(gates):
            await gates[number + 1].wait()
        gates[number].set()
        running -= 1
        return number

    assert [number async for number in answered_in_order(numbers(7), answer, 3)] == list(range(7))
    assert 2 <= most <= 3


async def test_what_is_under_way_ends_when_nobody_reads_on() -> None:
    started: list[int] = []
    cancelled: list[int] = []

    async def answer(number: int) -> int:
        started.append(number)
        if number:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        return number

    answers = answered_in_order(numbers(10), answer, 4)
    assert await anext(answers) == 0
    while len(started) < 5:
        await asyncio.sleep(0)
    await answers.aclose()  # type: ignore[attr-defined]
    assert sorted(cancelled) == [1, 2, 3, 4]


async def test_a_stream_that_breaks_breaks_the_answers() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("gone")

    async def answer(number: int) -> int:
        return number

    answers = answered_in_order(broken(), answer, 2)
    assert await anext(answers) == 1
    with pytest.raises(ConnectionError):
        await anext(answers)
