"""docs/settings.md shows every setting as the classes have it."""

from pathlib import Path

import check
from checks.settings_names import SETTINGS, variables
from checks.settings_page import settings_page, settings_page_problems


def test_the_committed_page_is_fresh_and_whole() -> None:
    assert settings_page_problems(check.SETTINGS_PAGE) == []
    text = check.SETTINGS_PAGE.read_text()
    assert all(f"| `{name}` |" in text for service in SETTINGS.values() for name in variables(service))


def test_a_stale_or_missing_page_fails(tmp_path: Path) -> None:
    page = tmp_path / "settings.md"
    assert settings_page_problems(page)
    page.write_text(settings_page().replace("32", "33", 1))
    assert settings_page_problems(page)
