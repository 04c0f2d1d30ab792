"""Page sizes are bounded, tokens come back as they went out, and others are refused."""

import pytest

from enxerto.kernel.errors import InvalidArgumentError, Violations
from enxerto.kernel.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page, PageRequest, page_request


@pytest.mark.parametrize(
    ("size", "expected"), [(0, DEFAULT_PAGE_SIZE), (1, 1), (MAX_PAGE_SIZE, MAX_PAGE_SIZE), (2**31 - 1, MAX_PAGE_SIZE)]
)
def test_sizes(size: int, expected: int) -> None:
    assert page_request(size, "", Violations()) == PageRequest(expected, "")


@pytest.mark.parametrize("key", ["a", "pets-2", "12", "???", "ação"])
def test_a_token_round_trips(key: str) -> None:
    violations = Violations()
    assert page_request(0, Page([1], key).next_page_token, violations).after == key
    assert not violations


def test_the_last_page_has_no_token() -> None:
    assert Page([1]).next_page_token == ""


@pytest.mark.parametrize("token", ["%%%", "a", "é", "AA==", "/w==", " YQ==", "YQ"])
def test_foreign_tokens_are_refused(token: str) -> None:
    violations = Violations()
    page_request(-1, token, violations)
    with pytest.raises(InvalidArgumentError) as caught:
        violations.raise_if_any()
    assert [violation.field for violation in caught.value.violations] == ["page_size", "page_token"]


@pytest.mark.parametrize(
    ("key", "refused"), [("1", False), ("999999999", False), ("1000000000", True), ("²", True), ("pets-2", True)]
)
def test_what_follows_numbers_is_a_number(key: str, refused: bool) -> None:
    violations = Violations()
    page_request(0, Page([1], key).next_page_token, violations, numbered=True)
    assert bool(violations) is refused
