"""A resource's events as one stream, whatever happens to the connection."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import grpc

from enxerto.client import _converters
from enxerto.client._channel import backoff_s
from enxerto.client._errors import CancelledError, DeadlineExceededError, EnxertoError, UnavailableError, from_rpc_error
from enxerto.client._results import Deployment, Event
from enxerto.inference.v1 import deployment_service_pb2
from enxerto.training.v1 import training_service_pb2

# Each of these leaves the events where they are: the next stream continues after the cursor.
_RECONNECT = (UnavailableError, CancelledError, DeadlineExceededError)
_STREAM_S = 300.0
"""Deadline of one stream, after which a new one continues: so a dead connection is noticed."""


def watch(
    send: Callable[..., Any], is_over: Callable[[], bool], run: str, after_cursor: int, *, patience_s: float
) -> Iterator[Event]:
    """Yield the events after a cursor until the run's final state, each exactly once.

    Args:
        send: the stub's WatchTrainingRun.
        is_over: whether the run is in a final state, asked when a stream ends without one.
        run: full name of the run.
        after_cursor: the last event already seen; 0 for all.
        patience_s: how long the service may be away before its error is raised.
    """
    cursor = after_cursor

    def start(**options: Any) -> Any:
        return send(training_service_pb2.WatchTrainingRunRequest(name=run, after_cursor=cursor), **options)

    with contextlib.closing(_messages(start, is_over, patience_s)) as messages:
        for message in messages:
            event = _converters.event(message)
            cursor = event.cursor
            yield event
            if event.state is not None and event.state.is_final:
                return


def watch_deployment(
    send: Callable[..., Any], deployment: str, *, patience_s: float, timeout_s: float | None = None
) -> Iterator[Deployment]:
    """Yield a deployment as it is and after each change, until it is removed.

    Args:
        send: the stub's WatchDeployment.
        deployment: full name of the deployment.
        patience_s: how long the service may be away before its error is raised.
        timeout_s: of the whole; DeadlineExceededError is raised after it.
    """
    cursor = 0

    def start(**options: Any) -> Any:
        return send(deployment_service_pb2.WatchDeploymentRequest(name=deployment, after_cursor=cursor), **options)

    # The service ends a stream without an error only when the deployment is gone.
    with contextlib.closing(_messages(start, lambda: True, patience_s, timeout_s)) as messages:
        for message in messages:
            cursor = message.cursor
            yield _converters.deployment(message.deployment)


def _messages(
    start: Callable[..., Any], is_over: Callable[[], bool], patience_s: float, timeout_s: float | None = None
) -> Generator[Any, None, None]:
    """The messages of one stream after the other; `start` begins one where the last has ended."""
    attempt = 0
    away_since: float | None = None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = _STREAM_S if deadline is None else max(0.001, min(_STREAM_S, deadline - time.monotonic()))
        stream = None
        try:
            stream = start(timeout=left_s)
            for message in stream:
                away_since, attempt = None, 0
                yield message
            if is_over():
                return
            error: EnxertoError = UnavailableError("the stream ended before what it shows did", code="UNAVAILABLE")
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            if not isinstance(error, _RECONNECT):
                raise error from failure
        except UnavailableError as failure:
            error = failure
        finally:
            if stream is not None:
                # The caller may stop reading at any message.
                stream.cancel()
        if isinstance(error, DeadlineExceededError):
            if deadline is not None and time.monotonic() >= deadline:
                raise error
            continue
        away_since = away_since or time.monotonic()
        delay_s = backoff_s(attempt, error)
        attempt += 1
        late = deadline is not None and time.monotonic() + delay_s >= deadline
        if late or time.monotonic() + delay_s - away_since > patience_s:
            raise error
        time.sleep(delay_s)
