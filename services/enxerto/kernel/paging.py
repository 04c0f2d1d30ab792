"""Page sizes and opaque page tokens (AIP-158)."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from enxerto.kernel.errors import Violations

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page a caller wants."""

    size: int = DEFAULT_PAGE_SIZE
    """At most this many items, 1 to 1,000."""
    after: str = ""
    """Key of the last item seen; empty for the first page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and how to get the next."""

    items: Sequence[T]
    next_after: str = ""
    """Key to continue after; empty on the last page."""
    keys: Sequence[str] = ()
    """Of each item, for lists whose items may be so large that a page has to end early."""

    @property
    def next_page_token(self) -> str:
        """The key as clients see it."""
        return base64.urlsafe_b64encode(self.next_after.encode()).decode() if self.next_after else ""


def page_request(page_size: int, page_token: str, violations: Violations, *, numbered: bool = False) -> PageRequest:
    """Read the paging fields of a List request; larger sizes are lowered to the largest allowed.

    Args:
        page_size: as asked for.
        page_token: as given.
        violations: what is wrong with them is added.
        numbered: whether the keys are numbers, of at most nine digits as those of versions.
    """
    if page_size < 0:
        violations.add("page_size", "must not be negative")
    after = _decoded(page_token)
    if after is None or (page_token and not after) or (after and numbered and not _is_number(after)):
        violations.add("page_token", "must be a next_page_token of an earlier answer")
    return PageRequest(min(page_size, MAX_PAGE_SIZE) if page_size > 0 else DEFAULT_PAGE_SIZE, after or "")


def _is_number(after: str) -> bool:
    return after.isascii() and after.isdigit() and len(after) < 10


def _decoded(page_token: str) -> str | None:
    """The key in a token, or None when it cannot be one of ours."""
    try:
        after = base64.b64decode(page_token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return after if after.isprintable() else None
