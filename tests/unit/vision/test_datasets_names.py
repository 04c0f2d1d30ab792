"""Names that are not Unicode, and folders and files that may not be read, are findings that can be stored and sent."""

import json
import os
from pathlib import Path

import pytest

from enxerto.vision.datasets.findings import Severity
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.datasets.scans import Scan
from enxerto.vision.snapshots import FolderBlobs, write_snapshot
from enxerto.vision.specs import Task
from fakes.dataset_folders import write_class_folders, write_coco, write_csv, write_voc, write_yolo
from fakes.datasets import classification_scenes, detection_scenes

LABELS = classification_scenes(4, 2)
BOXES = detection_scenes(8, objects=1)
ERROR, WARNING = Severity.ERROR, Severity.WARNING


def told(found: Scan) -> set[tuple[Severity, str, str]]:
    """What was found, all of which must be text."""
    for finding in found.findings:
        json.dumps(finding.to_json(), ensure_ascii=False).encode()
    json.dumps(found.class_names, ensure_ascii=False).encode()
    return {(finding.severity, finding.code, finding.path) for finding in found.findings}


def denied(path: object) -> PermissionError:
    return PermissionError(13, "Permission denied", str(path))


def test_a_picture_with_a_name_that_is_not_utf8_stops_an_import(tmp_path: Path) -> None:
    root = write_class_folders(LABELS, tmp_path)
    picture = next((root / "circle").iterdir())
    picture.rename(picture.with_name("caf\udce9.png"))
    (root / "circle" / "caf\udce8.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    (root / "circle" / "more\udce9").mkdir()
    (root / "circle" / "link\udce9.png").symlink_to(picture)
    assert told(scan(root)) == {
        (ERROR, "BAD_NAME", "circle/caf\\udce9.png"),
        (ERROR, "BAD_NAME", "circle/caf\\udce8.png"),
        (ERROR, "BAD_NAME", "circle/more\\udce9"),
        (ERROR, "SYMLINK", "circle/link\\udce9.png"),
    }


def test_any_other_file_with_such_a_name_is_a_warning(tmp_path: Path) -> None:
    root = write_class_folders(LABELS, tmp_path / "data")
    (root / "circle" / "notes\udce9.txt").write_text("hello")
    found = scan(root)
    assert told(found) == {(WARNING, "BAD_NAME", "circle/notes\\udce9.txt")}
    manifest, _ = write_snapshot(found, FolderBlobs(tmp_path / "blobs"))
    assert manifest.class_names == ("circle", "square")


def test_a_class_of_coco_that_is_not_text(tmp_path: Path) -> None:
    root = write_coco(BOXES, tmp_path)
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "\udce9"
    content["annotations"][0]["id"] = "\udce9"
    content["annotations"][0]["category_id"] = "\udce8"
    file.write_text(json.dumps(content))
    found = told(scan(root, Task.DETECTION))
    assert {
        (ERROR, "MALFORMED_CATEGORY", "annotations/instances_train.json"),
        (ERROR, "UNKNOWN_CLASS", "annotations/instances_train.json"),
    } <= found


def test_a_class_of_yolo_that_is_not_text(tmp_path: Path) -> None:
    root = write_yolo(BOXES, tmp_path)
    (root / "data.yaml").write_text(
        'train: train/images\nval: val/images\ntest: test/images\nnames: ["\\uDCE9", square]\n'
    )
    errors = [one for one in told(scan(root, Task.DETECTION)) if one[0] is ERROR]
    assert errors == [(ERROR, "MALFORMED_FILE", "data.yaml")]


@pytest.mark.parametrize("name", ["&#xDCE9;", "\udce9"])
def test_a_class_of_voc_that_is_not_text(tmp_path: Path, name: str) -> None:
    root = write_voc(BOXES, tmp_path)
    file = sorted((root / "Annotations").iterdir())[0]
    text = file.read_text().replace("<name>circle", f"<name>{name}").replace("<name>square", f"<name>{name}")
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert (ERROR, "MALFORMED_FILE", "Annotations/0000.xml") in told(scan(root, Task.DETECTION))


def test_a_class_of_a_table_that_is_not_text(tmp_path: Path) -> None:
    root = write_csv(LABELS, tmp_path)
    rows = (root / "data.csv").read_text().replace(",circle,", ",\udce9,")
    (root / "data.csv").write_bytes(rows.encode("utf-8", "surrogateescape"))
    assert (ERROR, "MALFORMED_FILE", "data.csv") in told(scan(root))


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_class_folders(LABELS, tmp_path)
    really_scan = os.scandir

    def scan_most(path):
        if str(path).endswith("square"):
            raise denied(path)
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", scan_most)
    assert (ERROR, "UNREADABLE_FOLDER", "square") in told(scan(root))


def test_a_root_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path):
        raise denied(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    assert told(scan(tmp_path)) == {(ERROR, "UNREADABLE_FOLDER", "."), (ERROR, "UNKNOWN_FORMAT", ".")}


def test_files_of_a_folder_that_may_not_be_entered_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_class_folders(LABELS, tmp_path)
    really_look = Path.lstat

    def look_at_most(path: Path):
        if path.parent.name == "square":
            raise denied(path)
        return really_look(path)

    monkeypatch.setattr(Path, "lstat", look_at_most)
    found = told(scan(root))
    assert {path.rsplit("/", 1)[0] for _, code, path in found if code == "UNREADABLE_FILE"} == {"square"}


def test_annotations_that_may_not_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_coco(BOXES, tmp_path)
    really_open = Path.open

    def open_most(path: Path, *args, **kwargs):
        if path.name == "instances_val.json":
            raise denied(path)
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_most)
    assert told(scan(root, Task.DETECTION)) == {(ERROR, "UNREADABLE_FILE", "annotations/instances_val.json")}
