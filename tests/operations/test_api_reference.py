"""docs/api says what the contracts say."""

import re
from pathlib import Path

import pytest
import reference


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.render(reference.compile_contracts().file)


def test_the_committed_pages_are_fresh() -> None:
    assert reference.main(["--check"]) == 0


def test_a_stale_a_missing_and_a_left_over_page_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "PAGES", tmp_path)
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "registry.md").write_text("old")
    (tmp_path / "training.md").unlink()
    (tmp_path / "gone.md").touch()
    assert reference.main(["--check"]) == 1
    assert "gone.md, registry.md, training.md" in capsys.readouterr().err


def test_every_method_and_field_is_described(pages: dict[str, str]) -> None:
    rows = [row for text in pages.values() for row in text.splitlines() if row.startswith("| `")]
    assert len(rows) > 200
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_every_link_leads_to_a_heading(pages: dict[str, str]) -> None:
    anchors = {
        f"{page}#{heading.lower().replace('.', '')}"
        for page, text in pages.items()
        for heading in re.findall(r"^### (.+)$", text, re.MULTILINE)
    }
    links = {link for text in pages.values() for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert links
    assert links <= anchors
