"""Small conversions between well-known protobuf types and Python, used by every service's converters."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A protobuf timestamp, or None."""
    if moment is None:
        return None
    result = Timestamp()
    result.FromDatetime(moment.astimezone(UTC))
    return result
