"""Many requests on one stream: order, errors, what holds a sender back, and what ends it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from enxerto.inference.service import in_order
from enxerto.inference.v1.vision_service_pb2 import (
    ClassifyRequest,
    DetectRequest,
    EmbedRequest,
    PredictStreamRequest,
    PredictStreamResponse,
    SegmentRequest,
    StylizeRequest,
)
from fakes.tiny_onnx import TinyDetector, TinyModel, TinyNegative, TinySegmenter
from grpc_details import FailedCall
from inference_front import Front, deployment, plain, running_front

MODELS = {
    "class": TinyModel(embeds=True), "detect": TinyDetector(), "segment": TinySegmenter(), "style": TinyNegative()
}  # fmt: skip
RED = (255, 0, 0)
MOST = 4


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path, MODELS, stream_max_in_flight=MOST) as running:
        yield running


async def gathered(front: Front, *requests: PredictStreamRequest) -> list[PredictStreamResponse]:
    return [answer async for answer in front.vision.PredictStream(iter(requests))]


async def test_every_task_is_answered_on_one_stream_in_order(front: Front) -> None:
    fields = {
        "classify": ClassifyRequest(deployment=deployment("class"), images=plain(RED), top_k=2),
        "detect": DetectRequest(deployment=deployment("detect"), images=plain(RED), max_objects=1),
        "segment": SegmentRequest(deployment=deployment("segment"), images=plain(RED, RED)),
        "stylize": StylizeRequest(deployment=deployment("style"), images=plain(RED)),
        "embed": EmbedRequest(deployment=deployment("class"), images=plain(RED)),
    }
    requests = [PredictStreamRequest(id=f"{kind} {n}", **{kind: fields[kind]}) for n in range(5) for kind in fields]
    answers = await gathered(front, *requests)
    assert [answer.id for answer in answers] == [request.id for request in requests]
    for answer in answers:
        kind = answer.WhichOneof("response")
        assert kind == answer.id.split()[0]
        assert len(getattr(answer, kind).results) == len(fields[kind].images)
    assert len(answers[0].classify.results[0].categories) == 2


async def test_a_request_that_fails_does_not_end_the_stream(front: Front) -> None:
    good = ClassifyRequest(deployment=deployment("class"), images=plain(RED))
    answers = await gathered(
        front,
        PredictStreamRequest(
            id="a", classify=ClassifyRequest(deployment=deployment("class"), images=[{"content": b"x"}])
        ),
        PredictStreamRequest(id="b", classify=ClassifyRequest(deployment=deployment("gone"), images=plain(RED))),
        PredictStreamRequest(id="c", detect=DetectRequest(deployment=deployment("class"), images=plain(RED))),
        PredictStreamRequest(id="d"),
        PredictStreamRequest(id="e", classify=good),
    )
    failures = [FailedCall(grpc.StatusCode.UNKNOWN, answer.error) for answer in answers[:4]]
    assert [failure.reason for failure in failures] == [
        "IMAGE_REFUSED", "DEPLOYMENT_NOT_FOUND", "TASK_MISMATCH", "INVALID_ARGUMENT"
    ]  # fmt: skip
    assert list(failures[0].violations) == ["images[0].content"]
    assert list(failures[3].violations) == ["request"]
    assert (answers[4].id, answers[4].WhichOneof("response")) == ("e", "classify")


async def test_the_deadline_is_that_of_the_stream(front: Front) -> None:
    request = PredictStreamRequest(classify=ClassifyRequest(deployment=deployment("class"), images=plain(RED)))
    call = front.vision.PredictStream(timeout=0.5)
    await call.write(request)
    assert (await call.read()).WhichOneof("response") == "classify"
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await call.read()
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


class Work:
    """Requests that count how many were read, and answers that wait for a test."""

    def __init__(self) -> None:
        self.read = 0
        self.cancelled = 0
        self.gate = asyncio.Event()

    async def requests(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            self.read += 1
            yield number

    async def answer(self, number: int) -> int:
        try:
            # Later ones are ready earlier.
            await self.gate.wait()
            await asyncio.sleep(0.001 * (10 - number))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_is_read_than_may_be_under_way() -> None:
    work = Work()
    answers = in_order(work.requests(10), work.answer, MOST)
    first = asyncio.ensure_future(anext(answers))
    await settled()
    assert work.read == MOST
    work.gate.set()
    assert await first == 0
    await settled()
    # The first answer's place is free once the next one is asked for: until then its reader may be slow.
    assert work.read == MOST
    assert [answer async for answer in answers] == list(range(1, 10))
    assert work.read == 10


async def test_what_is_under_way_is_cancelled_with_the_stream() -> None:
    work = Work()
    answers = in_order(work.requests(10), work.answer, MOST)
    first = asyncio.ensure_future(anext(answers))
    await settled()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert work.cancelled == MOST


async def test_what_is_under_way_is_cancelled_when_nobody_reads_on() -> None:
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

    answers = in_order(Work().requests(10), answer, MOST)
    assert await anext(answers) == 0
    await settled()
    assert started == [0, 1, 2, 3]
    await answers.aclose()
    assert cancelled == [1, 2, 3]


async def test_the_order_is_the_requests_whatever_ends_first_and_no_more_run_than_may() -> None:
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

    answers = in_order(Work().requests(7), answer, 3)
    assert [number async for number in answers] == list(range(7))
    assert 2 <= most <= 3


async def test_a_source_that_breaks_ends_the_stream_after_what_was_read() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("the line is cut")

    async def answer(number: int) -> int:
        return number

    answers = in_order(broken(), answer, MOST)
    assert await anext(answers) == 1
    with pytest.raises(RuntimeError, match="cut"):
        await anext(answers)
