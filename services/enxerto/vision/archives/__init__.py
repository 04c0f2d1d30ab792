"""Unpack an uploaded archive without trusting it."""

from enxerto.vision.archives.extraction import extract
from enxerto.vision.archives.limits import DEFAULT_LIMITS, ArchiveError, ArchiveLimits, Offender
from enxerto.vision.archives.names import Target, legible, safe_path

__all__ = [
    "DEFAULT_LIMITS",
    "ArchiveError",
    "ArchiveLimits",
    "Offender",
    "Target",
    "extract",
    "legible",
    "safe_path",
]
