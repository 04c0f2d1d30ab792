"""Frames on one stream, against a front with real answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from enxerto.client import Client, DeadlineExceededError, Detection, InvalidArgumentError, NotFoundError, Prediction
from fakes.scripted_services import scripted_services
from fakes.tiny_onnx import TinyDetector, TinyModel
from inference_front import Front, plain, running_front

RED = plain((255, 0, 0))[0].content


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    models = {"class": TinyModel(), "detect": TinyDetector()}
    async with running_front(tmp_path, models, stream_max_in_flight=4) as running:
        yield running


@pytest.fixture
def client(front: Front) -> Iterator[Client]:
    with Client(registry=front.address, training=front.address, inference=front.address) as opened:
        yield opened


async def test_a_bad_frame_is_an_error_in_its_place(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(RED)
    frames = [RED, b"no picture", path, RED]
    answers = await asyncio.to_thread(lambda: list(client.classify_stream("class", frames, top_k=2)))
    assert [type(answer) for answer in answers] == [Prediction, InvalidArgumentError, Prediction, Prediction]
    assert isinstance(answers[0], Prediction)
    assert len(answers[0].categories) == 2
    found = await asyncio.to_thread(lambda: list(client.detect_stream("detect", [RED] * 20, max_objects=1)))
    assert all(isinstance(one, Detection) and one.objects[0].label == "red" for one in found)
    assert len(found) == 20
    (missing,) = await asyncio.to_thread(lambda: list(client.classify_stream("gone", [RED])))
    assert isinstance(missing, NotFoundError)


def test_every_frame_carries_the_priority() -> None:
    with scripted_services() as services, Client(inference=services.address) as client:
        services.on("PredictStream", lambda _requests, _context: iter([]))
        assert not list(client.classify_stream("class", [RED, RED], priority=1))
        assert not list(client.detect_stream("detect", [RED], priority=3))
        assert not list(client.classify_stream("class", [RED]))
        classified, found, plainly = services.requests("PredictStream")
    assert [one.classify.priority for one in classified] == [1, 1]
    assert [one.detect.priority for one in found] == [3]
    assert [one.classify.priority for one in plainly] == [0]


async def test_a_priority_that_is_none_is_refused_in_its_place(client: Client) -> None:
    (refused,) = await asyncio.to_thread(lambda: list(client.classify_stream("class", [RED], priority=-1)))
    assert isinstance(refused, InvalidArgumentError)
    assert [violation.field for violation in refused.violations] == ["priority"]


async def test_an_endless_stream_is_read_as_answers_are_taken(client: Client) -> None:
    sent = 0

    def camera() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield RED

    def watch() -> list[object]:
        answers = client.classify_stream("class", camera())
        taken = [next(answers) for _ in range(10)]
        answers.close()  # type: ignore[attr-defined]
        return taken

    taken = await asyncio.to_thread(watch)
    assert all(isinstance(one, Prediction) for one in taken)
    after = sent
    await asyncio.sleep(0.2)
    assert sent <= after + 1


async def test_the_streams_deadline_is_raised(client: Client) -> None:
    def camera() -> Iterator[bytes]:
        while True:
            yield RED

    with pytest.raises(DeadlineExceededError):
        await asyncio.to_thread(lambda: list(client.classify_stream("class", camera(), timeout_s=0.5)))
