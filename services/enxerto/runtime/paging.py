"""Pages that fit a message, however large their items are (AIP-158 lets a page be shorter than was asked for)."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from enxerto.kernel.paging import Page

M = TypeVar("M", bound=Message)

MAX_PAGE_BYTES: Final = 3 * 2**20
"""Of the items of one answer: gRPC's clients take 4 MiB unless they ask for more."""


def fitting(page: Page[Any], messages: Iterable[M]) -> tuple[Sequence[M], str]:
    """The first items that fit, at least one, and the token of the page that goes on after them.

    Args:
        page: with keys.
        messages: its items, in order; those beyond the first that does not fit are not asked for.
    """
    fitted: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if fitted and size > MAX_PAGE_BYTES:
            return fitted, Page((), page.keys[len(fitted) - 1]).next_page_token
        fitted.append(message)
    return fitted, page.next_page_token
