"""Why a job failed, in an object that a worker leaves for the job's last word."""

import obstore
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from enxerto.kernel.errors import EnxertoError
from enxerto.runtime.error_table import internal_status, to_status
from enxerto.training.adapters.object_store import failure_key, put
from enxerto.training.worker.order import JobOrder

# What another try on the same cluster would not change.
_FINAL = frozenset({code_pb2.FAILED_PRECONDITION, code_pb2.INVALID_ARGUMENT, code_pb2.NOT_FOUND, code_pb2.DATA_LOSS})


def write_failure(order: JobOrder, error: EnxertoError) -> bool:
    """Leave an error in its own words, and say whether it is final."""
    status = to_status(error)
    put(order.store(), failure_key(order.uid, order.attempt), status.SerializeToString())
    return status.code in _FINAL


def failed_for_good(order: JobOrder) -> bool:
    """Whether a worker of this attempt has met what another try would not change."""
    status = _read(order)
    return status is not None and status.code in _FINAL


def last_word(order: JobOrder, seen: EnxertoError | None = None) -> bytes:
    """The serialised status that a worker left, else what the job has seen, else that something unforeseen happened."""
    status = _read(order)
    if status is None and seen is not None:
        status = to_status(seen)
    if status is None:
        status = internal_status(f"{order.uid}-{order.attempt}")
        status.message = f"the job failed; the cluster's log of the job {order.uid}-{order.attempt} tells why"
    encoded: bytes = status.SerializeToString()
    return encoded


def _read(order: JobOrder) -> Status | None:
    try:
        return Status.FromString(bytes(obstore.get(order.store(), failure_key(order.uid, order.attempt)).bytes()))
    except FileNotFoundError:
        return None
