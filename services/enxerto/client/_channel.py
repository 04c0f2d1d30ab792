"""One service's channel: deadlines, request ids, retries and errors around every call."""

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from enxerto.client._errors import EnxertoError, UnavailableError, from_rpc_error

T = TypeVar("T")

_ATTEMPTS = 5
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0
_MAX_MESSAGE_BYTES = 256 * 2**20
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # Many addresses behind one name share the load; HTTP/2 would pin it to one.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", 30_000),
    # By default a channel that lost its service may look away for two minutes after it is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Retries are decided here, where RetryInfo is read.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS; all fields are paths of PEM files."""

    ca: Path | None = None
    """Authorities to trust instead of the system's."""
    certificate: Path | None = None
    """Own certificate chain, for services that ask for one."""
    key: Path | None = None
    """Key of the own certificate."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""
        contents = [path.read_bytes() if path else None for path in (self.ca, self.key, self.certificate)]
        return grpc.ssl_channel_credentials(*contents)


def open_channel(address: str, tls: Tls | None) -> grpc.Channel:
    """A channel to `host:port`; nothing is sent before the first call."""
    if tls is None:
        return grpc.insecure_channel(address, options=_OPTIONS)
    return grpc.secure_channel(address, tls.credentials(), options=_OPTIONS)


def backoff_s(attempt: int, error: EnxertoError) -> float:
    """How long to wait before the attempt after `attempt` (0 is the first): what the service asked for, or a growing
    delay with jitter, so that many clients do not come back at once.
    """
    if error.retry_delay_s is not None:
        return error.retry_delay_s
    longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311


def call(send: Callable[..., T], request: Any, *, timeout_s: float) -> T:
    """Make one call, again when the service is UNAVAILABLE, all within one deadline.

    Args:
        send: the stub's method.
        request: the message, or for a client stream a function that returns a fresh iterator for each attempt.
        timeout_s: seconds for all attempts together.

    Raises:
        EnxertoError: the call failed; carries the request id that the service's log has.
    """
    deadline = time.monotonic() + timeout_s
    request_id = uuid.uuid4().hex
    attempt = 0
    while True:
        try:
            return send(
                request() if callable(request) else request,
                timeout=max(0.001, deadline - time.monotonic()),
                metadata=[("x-request-id", request_id)],
            )
        except grpc.RpcError as failure:
            error = from_rpc_error(failure, request_id)
            delay_s = backoff_s(attempt, error)
            attempt += 1
            last = attempt == _ATTEMPTS or time.monotonic() + delay_s >= deadline
            if last or not isinstance(error, UnavailableError):
                raise error from failure
            time.sleep(delay_s)
