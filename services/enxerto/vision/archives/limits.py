"""What an archive may cost, and why one is refused. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may unpack to; counted while it streams, its headers are not believed.

    Attributes:
        total_bytes: uncompressed.
        entries: files and folders.
        ratio: uncompressed / compressed, looked at above `ratio_floor_bytes`: small flat pictures compress well.
        ratio_floor_bytes: uncompressed size below which the ratio does not matter.
    """

    total_bytes: int = 50 * 1024**3
    entries: int = 1_000_000
    ratio: float = 200.0
    ratio_floor_bytes: int = 64 * 1024**2


DEFAULT_LIMITS: Final = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Offender:
    """One member that may not be unpacked.

    Attributes:
        member: its name in the archive; empty when it is the archive as a whole.
        code: stable: LINK, SPECIAL_FILE, ABSOLUTE_PATH, PATH_TRAVERSAL, BAD_NAME, DUPLICATE, ENCRYPTED, TOO_LARGE,
            TOO_MANY_ENTRIES, CORRUPT, UNSUPPORTED.
        description: for people.
    """

    member: str
    code: str
    description: str


class ArchiveError(ValueError):
    """The archive was refused and nothing of it was kept; `offenders` has every reason found."""

    def __init__(self, offenders: tuple[Offender, ...]) -> None:
        first = offenders[0]
        more = f" (and {len(offenders) - 1} more)" if len(offenders) > 1 else ""
        super().__init__(f"{first.member or 'archive'}: {first.description}{more}")
        self.offenders = offenders

    def __reduce__(self) -> tuple[type[ArchiveError], tuple[tuple[Offender, ...]]]:
        return type(self), (self.offenders,)


class StopError(Exception):
    """No further member is worth reading."""

    def __init__(self, offender: Offender) -> None:
        super().__init__(offender.description)
        self.offender = offender
