"""What happens around every RPC, outermost first: request id, log, metrics, errors; unary and streaming alike.

One interceptor does all four, because each needs the outcome of the ones inside it: the code that the log and the
metrics show is the one that the error table chose.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
from grpc_status import rpc_status

from enxerto.kernel.errors import EnxertoError
from enxerto.runtime import logs
from enxerto.runtime.error_table import TRAILER_BUDGET_BYTES, internal_status, to_status
from enxerto.runtime.metrics import MethodMetrics, RpcMetrics
from enxerto.runtime.texts import check_texts

logger = logging.getLogger(__name__)

T = TypeVar("T")

REQUEST_ID_KEY = "x-request-id"
_MAX_REQUEST_ID_CHARACTERS = 128
# The caller's deadline reaches us as its cancellation, a little before our own clock says so.
_DEADLINE_SLACK_S = 0.1
# Health probes and reflection would drown the log.
_QUIET = ("/grpc.health.v1.", "/grpc.reflection.")

Context = grpc.aio.ServicerContext[Any, Any]


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value)
        if key == REQUEST_ID_KEY and text.isprintable() and 0 < len(text) <= _MAX_REQUEST_ID_CHARACTERS:
            return text
    return secrets.token_hex(16)


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """Names, logs, counts and maps the errors of every RPC."""

    def __init__(self, metrics: RpcMetrics, frequent: Sequence[str] = ()) -> None:
        """Log to the module's logger.

        Args:
            metrics: that count every RPC.
            frequent: beginnings of full methods, such as `/package.Service/`, whose successes are logged as DEBUG only,
                and of whose requests no text is kept.
        """
        self._metrics = metrics
        self._frequent = tuple(frequent)
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        """By full method."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a method."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        service, _, name = method.lstrip("/").partition("/")
        metrics = MethodMetrics(self._metrics, service, name)
        if handler.response_streaming:
            serve: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

            # Written, not yielded: a call that its client abandons is then cancelled inside this coroutine, where it
            # can be counted and the servicer's generator be closed at once.
            async def stream(request: Any, context: Context) -> None:
                async def answer_all(identity: str) -> None:
                    self._check(method, request)
                    await context.send_initial_metadata(((REQUEST_ID_KEY, identity),))
                    responses = serve(request, context)
                    if inspect.isawaitable(responses):
                        await responses
                        return
                    async with contextlib.aclosing(responses):
                        async for response in responses:
                            await _write(context, response)

                await self._around(method, metrics, context, answer_all)

            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, handler.request_deserializer, handler.response_serializer)

        answer: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def unary(request: Any, context: Context) -> Any:
            async def answer_one(_: str) -> Any:
                self._check(method, request)
                return await answer(request, context)

            return await self._around(method, metrics, context, answer_one)

        make_unary = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make_unary(unary, handler.request_deserializer, handler.response_serializer)

    def _check(self, method: str, request: Any) -> None:
        """Look at a single request; streams bring bytes, behind a header without free text."""
        if not method.startswith(self._frequent):
            check_texts(request)

    async def _around(
        self, method: str, metrics: MethodMetrics, context: Context, serve: Callable[[str], Awaitable[T]]
    ) -> T:
        """Call what serves with the request id."""
        identity = _request_id(context)
        # For the rest of the call's own task.
        logs.request_id.set(identity)
        start = time.perf_counter()
        metrics.in_flight.inc()
        code = grpc.StatusCode.OK
        # With the status, which every call sends: as initial metadata it would be a message more.
        trailers = ((REQUEST_ID_KEY, identity),)
        context.set_trailing_metadata(trailers)
        try:
            return await serve(identity)
        except EnxertoError as error:
            status = rpc_status.to_status(to_status(error, TRAILER_BUDGET_BYTES))
            code = status.code
            await context.abort(code, status.details, (*status.trailing_metadata, *trailers))
        except NotImplementedError:
            code = grpc.StatusCode.UNIMPLEMENTED
            await context.abort(code, f"{method.rpartition('/')[2]} is not served here", trailers)
        except asyncio.CancelledError:
            left_s = context.time_remaining()
            late = left_s is not None and left_s <= _DEADLINE_SLACK_S
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            code = grpc.StatusCode(_value(context.code())) if context.code() else grpc.StatusCode.UNKNOWN
            raise
        except Exception:
            code = grpc.StatusCode.INTERNAL
            logger.exception("unforeseen error", extra={"rpc": method})
            status = rpc_status.to_status(internal_status(identity))
            await context.abort(code, status.details, (*status.trailing_metadata, *trailers))
        finally:
            seconds = time.perf_counter() - start
            # The answer goes out first.
            asyncio.get_running_loop().call_soon(self._count, method, metrics, context, code, seconds)

    def _count(
        self, method: str, metrics: MethodMetrics, context: Context, code: grpc.StatusCode, seconds: float
    ) -> None:
        metrics.in_flight.dec()
        metrics.handled(code.name).inc()
        metrics.seconds.observe(seconds)
        usual = code is grpc.StatusCode.OK and method.startswith(self._frequent)
        level = logging.DEBUG if usual else logging.INFO
        if logger.isEnabledFor(level) and not method.startswith(_QUIET):
            extra = {"rpc": method, "code": code.name, "duration_s": round(seconds, 6), "peer": context.peer()}
            logger.log(level, "rpc", extra=extra)


async def _write(context: Context, response: Any) -> None:
    """Send one message of a stream; a client that has gone is a cancellation, whichever way grpc tells of it."""
    try:
        await context.write(response)
    except grpc.aio.InternalError as error:
        # The batch that carries a message fails only when the call is already over.
        raise asyncio.CancelledError from error


def _value(code: Any) -> Any:
    """The (number, text) pair of a code, which grpc.aio reports as an enum or as a bare number."""
    if isinstance(code, grpc.StatusCode):
        return code.value
    return next(status.value for status in grpc.StatusCode if status.value[0] == code)
