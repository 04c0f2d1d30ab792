"""Errors as the serialised google.rpc.Status that failed resources keep."""

from enxerto.kernel.errors import EnxertoError
from enxerto.runtime.error_table import to_status


def encode_status(error: EnxertoError) -> bytes:
    """The same shape as an RPC's error, without the limit that trailers have."""
    encoded: bytes = to_status(error).SerializeToString()
    return encoded
