"""Why a job failed, in an object that a worker leaves for the job's last word."""

import re
from typing import Final

import obstore
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from enxerto.kernel.errors import EnxertoError
from enxerto.runtime.error_table import internal_status, to_status
from enxerto.training.adapters.object_store import failure_key, put
from enxerto.training.worker.order import JobOrder

# What another try on the same cluster would not change. A job that did not fit once does not fit a second time.
_FINAL = frozenset({
    code_pb2.FAILED_PRECONDITION,
    code_pb2.INVALID_ARGUMENT,
    code_pb2.NOT_FOUND,
    code_pb2.DATA_LOSS,
    code_pb2.RESOURCE_EXHAUSTED,
})  # fmt: skip
# What another attempt may not meet: a store or a service was away.
_PASSING = frozenset({code_pb2.UNAVAILABLE, code_pb2.ABORTED, code_pb2.DEADLINE_EXCEEDED})
_MAX_TEXT: Final = 300
_SECRETS: Final = (
    (re.compile(r"(?<=://)[^/\s@]+(?=@)"), "…"),
    (re.compile(r"\?[^\s'\"]+=[^\s'\"]*"), "?…"),
    (re.compile(r"(?i)\b(bearer|basic) \S+"), r"\1 …"),
    (
        re.compile(
            r"(?i)((?:(?:api|access|account)[_-]?key|secret|token|passw|signature|credential)\w*['\"]?\s*[=:]\s*['\"]?)[^\s'\"]+"
        ),
        r"\1…",
    ),
)
"""Users of addresses, signed queries, and what stands behind a telling name."""


def write_failure(order: JobOrder, error: Exception) -> bool:
    """Leave an error in its own words, and say whether it is final.

    What is not ours is told by its type and its first line, unless another worker of the attempt has told more: where
    one has failed, the others see no more than that a neighbour is silent.
    """
    if isinstance(error, EnxertoError):
        status = to_status(error)
    else:
        known = _read(order)
        if known is not None and known.code != code_pb2.INTERNAL:
            return known.code in _FINAL
        status = _unforeseen(order, f" with {_first_line(error)}")
    put(order.store(), failure_key(order.uid, order.attempt), status.SerializeToString())
    return status.code in _FINAL


def failed_for_good(order: JobOrder) -> bool:
    """Whether a worker of this attempt has met what another try would not change."""
    status = _read(order)
    return status is not None and status.code in _FINAL


def may_pass(order: JobOrder) -> bool:
    """Whether a worker of this attempt failed by what another attempt may not meet."""
    status = _read(order)
    return status is not None and status.code in _PASSING


def last_word(order: JobOrder, seen: EnxertoError | None = None) -> bytes:
    """The serialised status that a worker left, else what the job has seen, else that something unforeseen happened."""
    status = _read(order)
    if seen is not None and (status is None or status.code == code_pb2.INTERNAL):
        status = to_status(seen)
    if status is None:
        status = _unforeseen(order)
    encoded: bytes = status.SerializeToString()
    return encoded


def _read(order: JobOrder) -> Status | None:
    try:
        return Status.FromString(bytes(obstore.get(order.store(), failure_key(order.uid, order.attempt)).bytes()))
    except FileNotFoundError:
        return None


def _unforeseen(order: JobOrder, how: str = "") -> Status:
    job = f"{order.uid}-{order.attempt}"
    status = internal_status(job)
    status.message = f"the job failed{how}; the cluster's log of the job {job} tells why"
    return status


def _first_line(error: Exception) -> str:
    """Type and first line, without what might be a secret."""
    text = str(error).strip().partition("\n")[0]
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return f"{type(error).__name__}: {text[:_MAX_TEXT]}" if text else type(error).__name__
