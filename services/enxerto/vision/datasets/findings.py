"""What an owner of a data set should know of it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from enxerto.vision.archives import legible

Edges = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels of the upright picture."""


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
        pictures: paths of those that a person should look at; two when the one is compared with the other.
        box: as it was drawn, also beyond the first picture.
    """

    path: str
    severity: Severity
    code: str
    message: str
    line: int = 0
    pictures: tuple[str, ...] = ()
    box: Edges | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "pictures": list(self.pictures), "box": list(self.box) if self.box else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finding:
        """The reverse of `to_json`; raises KeyError, TypeError or ValueError."""
        box = None
        if value["box"] is not None:
            left, top, right, bottom = (float(edge) for edge in value["box"])
            box = (left, top, right, bottom)
        return cls(
            path=str(value["path"]),
            severity=Severity(value["severity"]),
            code=str(value["code"]),
            message=str(value["message"]),
            line=int(value["line"]),
            pictures=tuple(str(path) for path in value["pictures"]),
            box=box,
        )


def error(
    path: str, code: str, message: str, line: int = 0, *, pictures: tuple[str, ...] = (), box: Edges | None = None
) -> Finding:
    """A finding that stops an import; what is not Unicode in its texts is escaped."""
    return Finding(legible(path), Severity.ERROR, code, legible(message), line, pictures, box)


def warning(
    path: str, code: str, message: str, line: int = 0, *, pictures: tuple[str, ...] = (), box: Edges | None = None
) -> Finding:
    """A finding that is reported with an import, its texts likewise."""
    return Finding(legible(path), Severity.WARNING, code, legible(message), line, pictures, box)
