"""What happens around every call: request id, log, metrics, errors; unary and streaming alike."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from enxerto.kernel import errors
from enxerto.runtime import logs
from grpc_details import FailedCall, failed_call

VIOLATIONS = [errors.Violation("a.b", "must be good"), errors.Violation("c", "is required")]


async def refused(call: Any) -> FailedCall:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failed_call(caught.value)


async def drained(call: Any) -> list[bytes]:
    return [message async for message in call]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The lines that `configure_logging` writes."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    lines = io.StringIO()
    root.handlers = []
    logs.configure_logging("test", "INFO")
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(lines)
    yield lines
    root.handlers = before
    root.setLevel(level)


def records(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def fail_unary(_request: bytes, _context: Any) -> bytes:
    raise errors.InvalidArgumentError(VIOLATIONS)


async def fail_stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    raise errors.InvalidArgumentError(VIOLATIONS)


async def fail_collect(requests: Any, _context: Any) -> bytes:
    async for _ in requests:
        raise errors.InvalidArgumentError(VIOLATIONS)
    return b""


async def test_an_error_carries_its_details_whatever_the_kind_of_call(serve: Any) -> None:
    async with serve(unary=fail_unary, stream=fail_stream, collect=fail_collect) as running:

        async def one() -> AsyncIterator[bytes]:
            yield b"x"

        for call in (running.unary(), drained(running.stream()), running.collect(one())):
            failed = await refused(call)
            assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
            assert failed.violations == {"a.b": "must be good", "c": "is required"}
            assert (failed.reason, failed.info.domain) == ("INVALID_ARGUMENT", "enxerto")
            assert failed.message == "a.b: must be good (and 1 more)"
        for method in ("Unary", "Stream", "Collect"):
            assert await running.handled(method) == {"INVALID_ARGUMENT": 1}
            assert running.in_flight(method) == 0


async def test_messages_before_the_error_arrive(serve: Any) -> None:
    async with serve(stream=fail_stream) as running:
        call = running.stream()
        assert await call.read() == b"first"
        assert (await refused(call.read())).code == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_unforeseen_is_internal_and_its_stack_stays_in_the_log(serve: Any, log: io.StringIO) -> None:
    async def unary(_request: bytes, _context: Any) -> bytes:
        raise ZeroDivisionError("a secret detail")

    async with serve(unary=unary) as running:
        failed = await refused(running.unary(metadata=(("x-request-id", "request-1"),)))
        assert failed.code == grpc.StatusCode.INTERNAL
        assert failed.reason == "INTERNAL"
        request = failed.detail(error_details_pb2.RequestInfo)
        assert request is not None
        assert request.request_id == "request-1"
        assert "secret" not in str(failed.status)
        assert "Traceback" not in str(failed.status)
        assert await running.handled("Unary") == {"INTERNAL": 1}
    (error,) = [record for record in records(log) if record["severity"] == "ERROR"]
    assert error["request_id"] == "request-1"
    assert "a secret detail" in error["exc_info"]


async def test_not_implemented_is_unimplemented(serve: Any) -> None:
    async def unary(_request: bytes, _context: Any) -> bytes:
        raise NotImplementedError

    def stream(_request: bytes, _context: Any) -> Any:
        raise NotImplementedError

    async with serve(unary=unary, stream=stream) as running:
        assert (await refused(running.unary())).code == grpc.StatusCode.UNIMPLEMENTED
        assert (await refused(drained(running.stream()))).code == grpc.StatusCode.UNIMPLEMENTED
        assert (await refused(running.channel.unary_unary("/test.Bytes/None")(b""))).code == (
            grpc.StatusCode.UNIMPLEMENTED
        )
        assert await running.handled("Unary") == await running.handled("Stream") == {"UNIMPLEMENTED": 1}
        assert await running.handled("None") == {}


async def test_a_handlers_own_abort_is_passed_on_and_counted(serve: Any) -> None:
    async def unary(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "own words")
        return b""

    async with serve(unary=unary) as running:
        failed = await refused(running.unary())
        assert (failed.code, failed.message) == (grpc.StatusCode.OUT_OF_RANGE, "own words")
        assert await running.handled("Unary") == {"OUT_OF_RANGE": 1}


async def test_the_request_id_is_echoed_logged_and_made_where_missing(serve: Any, log: io.StringIO) -> None:
    async def unary(_request: bytes, _context: Any) -> bytes:
        logging.getLogger("inside").info("working", extra={"fact": 1})
        return logs.request_id.get().encode()

    async def stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield logs.request_id.get().encode()

    async with serve(unary=unary, stream=stream) as running:
        for given, kept in (("mine", True), ("x" * 129, False), ("", False)):
            call = running.unary(metadata=(("x-request-id", given),))
            seen = (await call).decode()
            echoed = dict(await call.trailing_metadata())["x-request-id"]
            assert seen == echoed
            assert (seen == given) is kept
        assert len((await running.unary()).decode()) == 32
        assert await drained(running.stream(metadata=(("x-request-id", "s"),))) == [b"s"]
    lines = records(log)
    inside = next(line for line in lines if line["message"] == "working")
    assert inside["request_id"] == "mine"
    assert inside["fact"] == 1
    assert {"time", "severity", "logger", "service"} <= set(inside)
    call = next(line for line in lines if line["message"] == "rpc")
    assert call["rpc"] == "/test.Bytes/Unary"
    assert call["code"] == "OK"
    assert call["request_id"] == "mine"
    assert call["duration_s"] >= 0


async def test_of_frequent_calls_only_failures_are_logged(serve: Any, log: io.StringIO) -> None:
    async def unary(request: bytes, _context: Any) -> bytes:
        if request:
            raise errors.UnavailableError("not now")
        return b""

    async with serve(unary=unary, frequent=("/test.Bytes/Un",)) as running:
        await running.unary()
        await refused(running.channel.unary_unary("/test.Bytes/Unary")(b"x"))
        assert await running.handled("Unary") == {"OK": 1, "UNAVAILABLE": 1}
    assert [line["code"] for line in records(log) if line["message"] == "rpc"] == ["UNAVAILABLE"]


class Waiting:
    """Handlers that wait until they are cancelled, and say so."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def unary(self, _request: bytes, _context: Any) -> bytes:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return b""

    async def stream(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            self.started.set()
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_cancelled_call_stops_its_handler(serve: Any, kind: str) -> None:
    waiting = Waiting()
    async with serve(unary=waiting.unary, stream=waiting.stream) as running:
        call = running.unary() if kind == "unary" else running.stream()
        if kind == "stream":
            await call.read()
        await waiting.started.wait()
        assert running.in_flight(kind.title()) == 1
        call.cancel()
        await asyncio.wait_for(waiting.ended.wait(), 5)
        assert await running.handled(kind.title()) == {"CANCELLED": 1}


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_deadline_stops_the_handler(serve: Any, kind: str) -> None:
    waiting = Waiting()
    async with serve(unary=waiting.unary, stream=waiting.stream) as running:
        call = running.unary(timeout=0.3) if kind == "unary" else drained(running.stream(timeout=0.3))
        assert (await refused(call)).code == grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(waiting.ended.wait(), 5)
        assert await running.handled(kind.title()) == {"DEADLINE_EXCEEDED": 1}


async def test_a_stream_that_is_sent_faster_than_it_is_read_is_closed_when_abandoned(serve: Any) -> None:
    closed = asyncio.Event()

    async def stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(2**20)
        finally:
            closed.set()

    async with serve(stream=stream) as running:
        call = running.stream()
        await call.read()
        call.cancel()
        await asyncio.wait_for(closed.wait(), 5)
        assert await running.handled("Stream") == {"CANCELLED": 1}


async def test_a_handler_that_writes_instead_of_yielding(serve: Any) -> None:
    async def stream(_request: bytes, context: Any) -> None:
        await context.write(b"a")
        await context.write(b"b")

    async with serve(stream=stream) as running:
        assert await drained(running.stream()) == [b"a", b"b"]
        assert await running.handled("Stream") == {"OK": 1}


async def test_a_message_over_the_limit_is_resource_exhausted(serve: Any) -> None:
    async def unary(request: bytes, _context: Any) -> bytes:
        return str(len(request)).encode()

    async def collect(requests: Any, _context: Any) -> bytes:
        return str(sum([len(request) async for request in requests])).encode()

    async with serve(unary=unary, collect=collect, max_message_bytes=2**20) as running:
        assert await running.unary(bytes(2**20)) == str(2**20).encode()
        assert (await refused(running.unary(bytes(2**20 + 1)))).code == grpc.StatusCode.RESOURCE_EXHAUSTED

        async def big() -> AsyncIterator[bytes]:
            yield bytes(2**20 + 1)

        with suppress(asyncio.CancelledError):
            assert (await refused(running.collect(big()))).code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_hundreds_of_violations_still_reach_the_caller(serve: Any) -> None:
    async def unary(_request: bytes, _context: Any) -> bytes:
        raise errors.InvalidArgumentError([errors.Violation(f"images[{i}]", "x" * 400) for i in range(500)])

    async with serve(unary=unary) as running:
        failed = await refused(running.unary())
        assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
        assert "violations from here on" in list(failed.violations.values())[-1]
