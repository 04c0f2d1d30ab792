"""What an owner of a data set should know of it. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """An ERROR stops an import; a WARNING is reported with it."""

    ERROR = "ERROR"
    WARNING = "WARNING"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one file or folder.

    Attributes:
        path: relative to the root, POSIX; "." is the root.
        severity: whether it stops the import.
        code: stable, upper snake case; for an image that cannot be read, the `reason` of the `ImageError`.
        message: for people.
        line: of the file, from 1; 0 when the file has no lines or the whole of it is meant.
    """

    path: str
    severity: Severity
    code: str
    message: str
    line: int = 0


def error(path: str, code: str, message: str, line: int = 0) -> Finding:
    """A finding that stops an import."""
    return Finding(path, Severity.ERROR, code, message, line)


def warning(path: str, code: str, message: str, line: int = 0) -> Finding:
    """A finding that is reported with an import."""
    return Finding(path, Severity.WARNING, code, message, line)
