"""A run's events as one stream, whatever happens to the connection."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from enxerto.client import _converters
from enxerto.client._channel import backoff_s
from enxerto.client._errors import CancelledError, DeadlineExceededError, EnxertoError, UnavailableError, from_rpc_error
from enxerto.client._results import Event
from enxerto.training.v1 import training_service_pb2

# Each of these leaves the events where they are: the next stream continues after the cursor.
_RECONNECT = (UnavailableError, CancelledError, DeadlineExceededError)


def watch(
    send: Callable[..., Any],
    is_over: Callable[[], bool],
    run: str,
    after_cursor: int,
    *,
    stream_s: float,
    patience_s: float,
) -> Iterator[Event]:
    """Yield the events after a cursor until the run's final state, each exactly once.

    Args:
        send: the stub's WatchTrainingRun.
        is_over: whether the run is in a final state, asked when a stream ends without one.
        run: full name of the run.
        after_cursor: the last event already seen; 0 for all.
        stream_s: deadline of one stream, after which a new one continues: so a dead connection is noticed.
        patience_s: how long the service may be away before its error is raised.
    """
    cursor, attempt = after_cursor, 0
    away_since: float | None = None
    while True:
        request = training_service_pb2.WatchTrainingRunRequest(name=run, after_cursor=cursor)
        stream = None
        try:
            stream = send(request, timeout=stream_s)
            for message in stream:
                away_since, attempt = None, 0
                event = _converters.event(message)
                cursor = event.cursor
                yield event
                if event.state is not None and event.state.is_final:
                    return
            if is_over():
                return
            error: EnxertoError = UnavailableError("the stream ended before the run did", code="UNAVAILABLE")
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
            if not isinstance(error, _RECONNECT):
                raise error from failure
        except UnavailableError as failure:
            error = failure
        finally:
            if stream is not None:
                # The caller may stop reading at any event.
                stream.cancel()
        if isinstance(error, DeadlineExceededError):
            continue
        away_since = away_since or time.monotonic()
        delay_s = backoff_s(attempt, error)
        attempt += 1
        if time.monotonic() + delay_s - away_since > patience_s:
            raise error
        time.sleep(delay_s)
