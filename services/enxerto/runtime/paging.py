"""Pages that fit a message, however large their items are (AIP-158 lets a page be shorter than was asked for)."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from enxerto.kernel.paging import Page

M = TypeVar("M", bound=Message)

MAX_PAGE_BYTES: Final = 3 * 2**20
"""Of the items of one answer: gRPC's clients take 4 MiB unless they ask for more."""


def fitting(page: Page[Any], messages: Sequence[M]) -> tuple[Sequence[M], str]:
    """The first items that fit, at least one, and the token of the page that goes on after them.

    Args:
        page: with keys.
        messages: its items, in order.
    """
    size = 0
    for count, message in enumerate(messages):
        size += message.ByteSize()
        if count and size > MAX_PAGE_BYTES:
            return messages[:count], Page((), page.keys[count - 1]).next_page_token
    return messages, page.next_page_token
