"""The members of a JSON file, one element at a time, as Python's own parser has them."""

import json
import math
from pathlib import Path

import pytest

from enxerto.vision.datasets.json_stream import Elements, JsonStreamError, NotAnObjectError, members


def read(file: Path) -> dict:
    return {key: list(value) if isinstance(value, Elements) else value for key, value in members(file)}


@pytest.mark.parametrize("lead", [0, 1, 262_130, 262_137, 262_143, 524_280])
def test_values_that_lie_across_two_blocks_come_whole(lead: int, tmp_path: Path) -> None:
    values = [12345.625, -1e-7, True, None, 'a\\"b\nü€😀', {"deep": [[1, 2], {}]}, 10**40, "x" * 300_000, 7]
    content = {"pad": " " * lead, "empty": [], "values": values, "object": {"k": [1]}, "number": 12.5}
    file = tmp_path / "a.json"
    file.write_text("\ufeff" + json.dumps(content, ensure_ascii=False, indent=1) + "\n ", encoding="utf-8")
    assert read(file) == content


def test_elements_that_nobody_takes_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, 2, 3], "b": [4, NaN, -Infinity]}')
    found = {key: next(iter(value)) for key, value in members(file)}
    assert found == {"a": 1, "b": 4}
    last = read(file)["b"]
    assert math.isnan(last[1])
    assert last[2] == -math.inf
    file.write_text(" {} ")
    assert read(file) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a"',
        '{"a":\n',
        '{"a": [1,\n',
        '{"a": [1\n 2]}',
        '{"a": [1,\n]}',
        '{"a": tru}',
        '{"a": 1}\n{}',
        '{"a": "b\n"}',
        "{1: 2}",
        '{"a": 1,\n "b": 2',
        '{"a": [{"b": 1}\n, {"b" 2}' + ", 3" * 200_000 + "]}",
    ],
    ids=lambda text: text[:20],
)
def test_a_broken_file_is_told_as_the_parser_tells_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(JsonStreamError) as found:
        read(file)
    assert found.value.line == expected.value.lineno


def test_what_is_no_object_and_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[1, 2]")
    with pytest.raises(NotAnObjectError):
        read(file)
    file.write_bytes(b'{"a": "' + b"x" * 300_000 + b"\xff" + b'"}')
    with pytest.raises(UnicodeDecodeError) as found:
        read(file)
    assert found.value.start == 300_007
    file.write_text('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(RecursionError):
        read(file)


@pytest.mark.parametrize("lead", [0, 65_530, 262_135, 262_143])
def test_elements_have_the_lines_that_they_begin_on(lead: int, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    many = ",\n".join('{"b":\n 1}' for _ in range(20_000))
    file.write_text("\n" * lead + '{"a": [ 1, [\n2\n]\n\n, 3,\n 4], "skipped": [\n1,\n2],\n "b": [' + many + "]}")
    found = {
        key: [value.line - lead for _ in value]
        for key, value in members(file)
        if isinstance(value, Elements) and key in "ab"
    }
    assert found == {"a": [1, 1, 5, 6], "b": [9 + 2 * number for number in range(20_000)]}
