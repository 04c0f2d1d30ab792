"""The order of writing, naming and flushing, on which it rests that a power failure undoes nothing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enxerto.runtime.durable_files import publish
from flushes import Flush


@pytest.mark.parametrize("create", [False, True])
def test_bytes_are_flushed_before_they_have_their_name_and_the_name_before_the_return(
    tmp_path: Path, flushes: list[Flush], create: bool
) -> None:
    path = tmp_path / "runs" / "u1" / "spec.json"
    publish(path, b"first", create=create)
    # The folders that were made, the bytes under another name, and the name.
    runs, run, content, name = flushes
    assert [runs, run] == [Flush(tmp_path, {"runs"}), Flush(tmp_path / "runs", {"u1"})]
    assert content.target.parent == path.parent
    assert content.names == {content.target.name}
    assert content.target != path
    assert name.target == path.parent
    assert path.name in name.names
    assert path.read_bytes() == b"first"
    assert [one.name for one in path.parent.iterdir()] == ["spec.json"]


def test_a_file_is_replaced_unless_it_must_be_new(tmp_path: Path, flushes: list[Flush]) -> None:
    path, source = tmp_path / "one", tmp_path / "source"
    publish(path, b"first")
    source.write_bytes(b"second")
    publish(path, source)
    assert path.read_bytes() == b"second"
    flushes.clear()
    with pytest.raises(FileExistsError):
        publish(path, b"third", create=True)
    assert flushes == []
    assert path.read_bytes() == b"second"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["one", "source"]


def test_what_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "there" / "one", tmp_path / "missing")
    assert list((tmp_path / "there").iterdir()) == []


def test_of_two_at_once_that_must_be_new_one_is(tmp_path: Path) -> None:
    def attempt(number: int) -> bool:
        try:
            publish(tmp_path / "one", str(number).encode(), create=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(attempt, range(40)))
    assert done.count(True) == 1
    assert (tmp_path / "one").read_text() == str(done.index(True))
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
