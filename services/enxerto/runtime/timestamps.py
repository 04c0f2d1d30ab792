"""Small conversions between well-known protobuf types and Python, used by every service's converters."""

from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A protobuf timestamp, or None."""
    if moment is None:
        return None
    result = Timestamp()
    result.FromDatetime(moment.astimezone(UTC))
    return result


def duration(seconds: float) -> Duration:
    """A protobuf duration, to the nanosecond."""
    result = Duration()
    result.FromNanoseconds(round(seconds * 1e9))
    return result
