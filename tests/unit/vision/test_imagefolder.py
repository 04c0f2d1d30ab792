from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.datasets.findings import Severity
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.datasets.splitting import SplitFractions
from enxerto.vision.specs import Split


def _draw(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8, 3), value % 256, dtype=np.uint8)
    pixels[0, 0] = (value // 256, 1, 2)
    Image.fromarray(pixels).save(file)


def _folder(root: Path, classes: dict[str, int], start: int = 0) -> Path:
    value = start
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            _draw(root / name / f"{index}.png", value)
            value += 1
    return root


def _codes(root: Path) -> dict[str, str]:
    return {finding.path: finding.code for finding in scan(root).findings}


def test_every_class_is_in_every_split(tmp_path: Path) -> None:
    result = scan(_folder(tmp_path, {"ant": 20, "bee": 3, "cat": 100}))
    assert [finding.code for finding in result.findings] == ["CLASS_IMBALANCE"]
    assert result.class_names == ("ant", "bee", "cat")
    counts = Counter((result.class_names[sample.label], sample.split) for sample in result.samples)
    assert counts["bee", Split.TRAIN] == counts["bee", Split.VAL] == counts["bee", Split.TEST] == 1
    assert (counts["ant", Split.TRAIN], counts["ant", Split.VAL], counts["ant", Split.TEST]) == (14, 3, 3)
    assert (counts["cat", Split.TRAIN], counts["cat", Split.VAL], counts["cat", Split.TEST]) == (70, 15, 15)


def test_two_images_are_enough_for_training_and_validation(tmp_path: Path) -> None:
    result = scan(_folder(tmp_path, {"ant": 2, "bee": 2}))
    assert not result.errors
    assert Counter(sample.split for sample in result.samples) == {Split.TRAIN: 2, Split.VAL: 2}


def test_the_split_depends_on_the_seed_and_the_images_only(tmp_path: Path) -> None:
    first = scan(_folder(tmp_path / "a", {"ant": 30, "bee": 30}))
    again = scan(_folder(tmp_path / "b", {"ant": 30, "bee": 30}), threads=1)
    other = scan(tmp_path / "a", seed=1)
    assert first.samples == again.samples
    assert [sample.split for sample in first.samples] != [sample.split for sample in other.samples]


def test_copies_stay_in_one_split(tmp_path: Path) -> None:
    root = _folder(tmp_path, {"ant": 10, "bee": 10})
    for index in range(10):
        (root / "ant" / f"copy{index}.png").write_bytes((root / "ant" / f"{index}.png").read_bytes())
    result = scan(root)
    assert not result.findings
    by_digest: dict[str, set[Split]] = {}
    for sample in result.samples:
        by_digest.setdefault(sample.sha256, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in by_digest.values())


def test_given_splits_are_kept_and_a_missing_one_is_carved(tmp_path: Path) -> None:
    for index, split in enumerate(("train", "val")):
        _folder(tmp_path / split, {"ant": 10, "bee": 10}, start=100 * index)
    result = scan(tmp_path)
    assert not result.findings
    counts = Counter((sample.path.split("/")[0], sample.split) for sample in result.samples)
    assert counts == {("train", Split.TRAIN): 16, ("train", Split.TEST): 4, ("val", Split.VAL): 20}


def test_a_class_without_training_images_is_an_error(tmp_path: Path) -> None:
    _folder(tmp_path / "train", {"ant": 5, "bee": 5})
    _folder(tmp_path / "val", {"ant": 5, "cat": 5}, start=100)
    assert "CLASS_NOT_IN_TRAIN" in {finding.code for finding in scan(tmp_path).errors}


@pytest.mark.parametrize("other", ["single_prediction", "unlabeled", "docs/figures"])
def test_what_lies_beside_splits_is_left_out_and_told(other: str, tmp_path: Path) -> None:
    for index, split in enumerate(("train", "test")):
        _folder(tmp_path / split, {"ant": 10, "bee": 10}, start=100 * index)
    _folder(tmp_path, {other: 3}, start=500)
    result = scan(tmp_path)
    assert result.class_names == ("ant", "bee")
    assert {sample.split for sample in result.samples if sample.path.startswith("test/")} == {Split.TEST}
    (finding,) = result.findings
    assert (finding.code, finding.path) == ("STRAY_FOLDER", other.removesuffix("/figures"))
    assert finding.severity is Severity.WARNING
    assert "3 files" in finding.message


def test_pictures_of_a_split_without_classes_are_left_out_together(tmp_path: Path) -> None:
    _folder(tmp_path / "train", {"ant": 10, "bee": 10})
    _folder(tmp_path, {"test": 30}, start=100)
    result = scan(tmp_path)
    assert result.class_names == ("ant", "bee")
    assert _codes(tmp_path) == {"test": "STRAY_FOLDER"}


def test_splits_inside_a_folder_of_the_same_name(tmp_path: Path) -> None:
    for index, split in enumerate(("seg_train", "seg_test")):
        _folder(tmp_path / split / split, {"ant": 10, "bee": 10}, start=100 * index)
    _folder(tmp_path / "seg_pred", {"seg_pred": 3}, start=500)
    result = scan(tmp_path)
    assert result.class_names == ("ant", "bee")
    assert _codes(tmp_path) == {"seg_pred": "STRAY_FOLDER"}
    assert {sample.split for sample in result.samples if "seg_test" in sample.path} == {Split.TEST}


def test_a_split_of_training_alone_needs_nothing_beside_it(tmp_path: Path) -> None:
    _folder(tmp_path / "train", {"ant": 10, "bee": 10})
    (tmp_path / "readme.md").write_text("x")
    assert scan(tmp_path).class_names == ("ant", "bee")


@pytest.mark.parametrize("name", ["train", "test", "train_station"])
def test_a_class_may_be_named_after_a_split(name: str, tmp_path: Path) -> None:
    result = scan(_folder(tmp_path, {"bus": 10, "car": 10, name: 10}))
    assert not result.findings
    assert result.class_names == ("bus", "car", name)


@pytest.mark.parametrize(
    "folders",
    [
        ("train/ant", "train/bee", "unlabeled"),
        ("train/ant", "train/bee", "holdout/ant", "holdout/bee"),
        ("val/ant", "val/bee", "test/ant", "test/bee"),
        ("train", "test", "car"),
    ],
)
def test_splits_that_may_be_classes_are_refused(folders: tuple[str, ...], tmp_path: Path) -> None:
    (finding,) = scan(_folder(tmp_path, dict.fromkeys(folders, 5))).errors
    assert finding.code == "AMBIGUOUS_SPLITS"
    assert folders[0].split("/")[0] in finding.message


def test_a_lone_outer_folder_is_looked_through(tmp_path: Path) -> None:
    _folder(tmp_path / "flowers", {"rose": 3, "tulip": 3})
    (tmp_path / "__MACOSX").mkdir()
    assert scan(tmp_path).class_names == ("rose", "tulip")


def test_every_bad_file_is_reported_in_one_go(tmp_path: Path) -> None:
    root = _folder(tmp_path / "data", {"ant": 5, "bee": 5, "empty": 0, "single": 1})
    whole = (root / "ant" / "0.png").read_bytes()
    (root / "ant" / "corrupt.png").write_bytes(whole[:20] + b"\xff" + whole[21:])
    (root / "ant" / "cut.png").write_bytes(whole[:-30])
    (root / "ant" / "none.png").write_bytes(b"")
    (root / "ant" / "really_png.jpg").write_bytes((root / "ant" / "1.png").read_bytes())
    (root / "bee" / "moving.gif").write_bytes(b"GIF89a")
    (root / "bee" / "notes.txt").write_text("hello")
    (root / "bee" / ".DS_Store").write_text("x")
    (root / "readme.md").write_text("x")
    (root / "bee" / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "out").symlink_to(tmp_path)
    assert _codes(root) == {
        "ant/corrupt.png": "CORRUPT_IMAGE",
        "ant/cut.png": "TRUNCATED_IMAGE",
        "ant/none.png": "EMPTY_IMAGE",
        "ant/really_png.jpg": "WRONG_EXTENSION",
        "bee/moving.gif": "UNSUPPORTED_IMAGE_FORMAT",
        "bee/notes.txt": "NOT_AN_IMAGE",
        "bee/link.png": "SYMLINK",
        "empty": "EMPTY_CLASS",
        "out": "SYMLINK",
        "readme.md": "STRAY_FILE",
        "single": "TOO_FEW_IMAGES",
    }
    warnings = {finding.path for finding in scan(root).findings if finding.severity is Severity.WARNING}
    assert warnings == {"ant/really_png.jpg", "bee/notes.txt", "readme.md"}


def test_one_class_is_too_few(tmp_path: Path) -> None:
    assert {finding.code for finding in scan(_folder(tmp_path, {"ant": 5})).errors} == {"TOO_FEW_CLASSES"}


def test_an_empty_folder_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    assert {finding.code for finding in scan(tmp_path).errors} == {"UNKNOWN_FORMAT"}


def test_the_same_picture_in_two_classes_is_a_warning(tmp_path: Path) -> None:
    root = _folder(tmp_path, {"ant": 5, "bee": 5})
    (root / "bee" / "x.png").write_bytes((root / "ant" / "0.png").read_bytes())
    assert _codes(root) == {"bee/x.png": "CONFLICTING_LABEL"}


def test_progress_is_told_and_may_stop_the_scan(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        scan(_folder(tmp_path, {"ant": 5, "bee": 5}), progress=progress)
    assert seen == [(1, 10), (2, 10), (3, 10)]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        scan(tmp_path / "nowhere")


def test_bad_fractions() -> None:
    with pytest.raises(ValueError, match="below 1"):
        SplitFractions(val=0.5, test=0.5)
