from pathlib import Path

import pytest

from enxerto.cli.quickstart import dataset_id
from enxerto.cli.sample import SampleError, split_folder, write_digits
from enxerto.kernel.names import is_id


def test_digits_are_class_folders_and_the_held_out_ones_are_not_in_them(tmp_path: Path) -> None:
    sample = write_digits(tmp_path / "digits", {"train": 3, "val": 1, "test": 1})
    names = {path.relative_to(sample.folder).as_posix() for path in sample.folder.rglob("*.png")}
    assert len(names) == 50
    assert sorted(path.name for path in (sample.folder / "train").iterdir()) == [str(digit) for digit in range(10)]
    assert len({path.name for path in sample.folder.rglob("*.png")}) == 50, "no image is in two splits"
    assert [label for _path, label in sample.held_out] == [str(digit) for digit in range(10)]
    assert not {path.name for path in sample.folder.rglob("*.png")} & {path.name for path, _label in sample.held_out}


def test_a_persons_folder_is_only_read_and_gives_one_image_a_class(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    for name, count in (("cat", 4), ("dog", 3), ("rare", 2)):
        for number in range(count):
            path = source / name / f"{number}.JPG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    (source / "cat" / "notes.txt").write_text("not an image")
    before = sorted(source.rglob("*"))
    sample = split_folder(source, tmp_path / "work", "photos")
    assert sorted(source.rglob("*")) == before
    assert {label: path.name for path, label in sample.held_out} == {"cat": "3.JPG", "dog": "2.JPG"}
    kept = sorted(path.relative_to(sample.folder).as_posix() for path in sample.folder.rglob("*.*"))
    assert kept == [
        "cat/0.JPG",
        "cat/1.JPG",
        "cat/2.JPG",
        "cat/notes.txt",
        "dog/0.JPG",
        "dog/1.JPG",
        "rare/0.JPG",
        "rare/1.JPG",
    ]


@pytest.mark.parametrize("classes", [[], ["only"]])
def test_fewer_than_two_classes_are_refused(tmp_path: Path, classes: list[str]) -> None:
    for name in classes:
        (tmp_path / name).mkdir()
    with pytest.raises(SampleError, match="at least two class folders"):
        split_folder(tmp_path, tmp_path / "work", "x")


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("My Photos (2024)", "my-photos-2024"), ("2024", "data-2024"), ("été", "t"), ("猫", "data")],
)
def test_a_folders_name_becomes_an_id(folder: str, expected: str) -> None:
    assert dataset_id(Path("/pictures") / folder) == expected


@pytest.mark.parametrize(
    "folder", ["a" * 39 + " b", "photos of flowers from the summer garden 2024", "7" * 39 + "-x", "-"]
)
def test_a_folders_name_of_any_length_becomes_an_id(folder: str) -> None:
    assert is_id(dataset_id(Path("/pictures") / folder))
