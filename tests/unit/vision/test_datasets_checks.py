"""What is wrong with data is told with file and line, and nothing outside of the data is ever read."""

import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.datasets.findings import Severity
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.specs import Split, Task
from fakes.dataset_folders import write_class_folders, write_coco, write_csv, write_masks, write_voc, write_yolo
from fakes.datasets import classification_scenes, detection_scenes, segmentation_scenes, texture

DETECTION = detection_scenes(8, objects=1)


def told(root: Path, task: Task) -> set[tuple[str, str, int]]:
    """Code, file and line of the findings, without the background pictures of the scenes."""
    return {
        (finding.code, finding.path, finding.line)
        for finding in scan(root, task).findings
        if finding.code != "IMAGE_WITHOUT_ANNOTATION"
    }


def test_every_kind_of_bad_box_is_told_with_its_line(tmp_path: Path) -> None:
    root = write_csv(DETECTION, tmp_path)
    file = root / "data.csv"
    lines = file.read_text().splitlines()
    name = lines[1].split(",")[0]
    start = len(lines) + 1
    lines += [
        f"{name},10,10,200,40,circle,train",
        f"{name},500,500,600,600,circle,train",
        f"{name},nan,1,5,5,circle,train",
        f"{name},20,20,10,10,circle,train",
        f"{name},20,20,20,40,circle,train",
        f"{name},1,2,three,4,circle,train",
        f"{name},1,2,9,9,,train",
        f"{name},30,30,50,50,circle,train",
        f"{name},30,30,50,50,circle,train",
        f"{name},1",
        "../../etc/passwd,1,2,9,9,circle,train",
        "/etc/passwd,1,2,9,9,circle,train",
        "nowhere.png,1,2,9,9,circle,train",
        f"{name},60,60,70,70,circle,holdout",
        f"{name},60,60,70,70,circle,val",
        f"{name},-0.4,60,70,96.3,circle,train",
    ]
    file.write_text("\n".join(lines))
    codes = [
        "BOX_CLIPPED", "BOX_OUTSIDE", "BOX_NOT_FINITE", "BOX_INVERTED", "BOX_WITHOUT_AREA", "MALFORMED_ROW",
        "EMPTY_LABEL", None, "DUPLICATE_ANNOTATION", "MALFORMED_ROW", "PATH_ESCAPE", "PATH_ESCAPE", "MISSING_IMAGE",
        "UNKNOWN_SPLIT", "CONFLICTING_SPLIT",
    ]  # fmt: skip
    expected = {(code, "data.csv", start + offset) for offset, code in enumerate(codes) if code}
    assert told(root, Task.DETECTION) == expected
    warned = {finding.code for finding in scan(root, Task.DETECTION).findings if finding.severity is Severity.WARNING}
    assert warned == {"BOX_CLIPPED", "BOX_WITHOUT_AREA", "DUPLICATE_ANNOTATION", "IMAGE_WITHOUT_ANNOTATION"}
    boxes = [box for sample in scan(root, Task.DETECTION).samples for box in sample.boxes]
    assert all(0 <= box.x_min < box.x_max <= 96 and 0 <= box.y_min < box.y_max <= 96 for box in boxes)


def test_labels_that_contradict_each_other(tmp_path: Path) -> None:
    root = write_csv(classification_scenes(4, 2), tmp_path)
    file = root / "data.csv"
    lines = file.read_text().splitlines()
    path, label, split = lines[1].split(",")
    other = "square" if label == "circle" else "circle"
    file.write_text("\n".join([*lines, f"{path},{label},{split}", f"{path},{other},{split}", f"{path},,{split}"]))
    start = len(lines) + 1
    assert told(root, Task.CLASSIFICATION) == {
        ("DUPLICATE_ANNOTATION", "data.csv", start),
        ("CONFLICTING_LABEL", "data.csv", start + 1),
        ("EMPTY_LABEL", "data.csv", start + 2),
    }


def test_rows_of_a_column_for_each_class_that_are_of_none_or_several(tmp_path: Path) -> None:
    root = write_csv(classification_scenes(4, 2), tmp_path)
    file = root / "data.csv"
    header, *lines = (line.split(",") for line in file.read_text().splitlines())
    rows = [f"{path},{split},{int(label == 'circle')},{int(label == 'square')}" for path, label, split in lines]
    start, path = len(rows) + 2, lines[0][0]
    # So long a table that the strange number is not among what is looked at to find out what it is.
    rows += [f"{path},train,0,0"] + [f"{path},train,1,1"] * 3000 + [f"{path},train,2,0", f"{path},train,1"]
    file.write_text("\n".join([f"{header[0]},{header[2]},circle,square", *rows]))
    found = told(root, Task.CLASSIFICATION)
    assert found >= {
        ("EMPTY_LABEL", "data.csv", start),
        ("CONFLICTING_LABEL", "data.csv", start + 1),
        ("MALFORMED_ROW", "data.csv", start + 3001),
        ("MALFORMED_ROW", "data.csv", start + 3002),
    }
    assert {code for code, _, line in found if line >= start} == {"EMPTY_LABEL", "CONFLICTING_LABEL", "MALFORMED_ROW"}


def change(file: Path, edit) -> None:
    """Each entry of a list gets a line of its own, as the reader is to tell it."""
    content = json.loads(file.read_text())
    edit(content)
    lists = (f"{json.dumps(key)}: [\n" + ",\n".join(map(json.dumps, value)) + "]" for key, value in content.items())
    file.write_text("{" + ",\n".join(lists) + "}\n")


def line_of(file: Path, text: str) -> int:
    """The only line that holds a text."""
    (line,) = (number for number, line in enumerate(file.read_text().splitlines(), start=1) if text in line)
    return line


def test_every_fault_of_a_coco_file(tmp_path: Path) -> None:
    root = write_coco(DETECTION, tmp_path)
    file = root / "annotations" / "instances_train.json"

    def edit(content: dict) -> None:
        image = content["images"][0]["id"]
        known = content["categories"][0]["id"]
        content["images"].append({"id": 900, "file_name": "../../../etc/passwd"})
        content["images"].append({"id": 901, "file_name": "gone.png"})
        content["images"].append({"id": image, "file_name": "again.png"})
        content["images"].append({"id": [902], "file_name": "0001.png"})
        content["images"][1]["width"] = 5
        content["annotations"] += [
            {"id": 50, "image_id": image, "category_id": 999, "bbox": [1, 1, 2, 2]},
            {"id": 51, "image_id": 777, "category_id": known, "bbox": [1, 1, 2, 2]},
            {"id": 52, "image_id": image, "category_id": known, "bbox": [1, 1, 2]},
            {"id": 53, "category_id": known},
            {"id": 54, "image_id": image, "category_id": known, "bbox": [1, 1, float("nan"), 4]},
            {"id": 55, "image_id": image, "category_id": known, "bbox": [1, 1, 10**400, 4]},
            {"id": 56, "image_id": [image], "category_id": known},
            {"id": 57, "image_id": image, "category_id": {"id": known}},
        ]
        content["categories"].append({"id": 1000, "name": "never"})
        content["categories"].append({"name": "no id"})

    change(file, edit)
    name = "annotations/instances_train.json"
    where = {
        "PATH_ESCAPE": ['"id": 900'],
        "MISSING_IMAGE": ['"id": 901', '"id": 51'],
        "DUPLICATE_IMAGE": ['"file_name": "again.png"'],
        "MALFORMED_IMAGE": ['"id": [902]'],
        "SIZE_MISMATCH": ['"width": 5'],
        "UNKNOWN_CLASS": ['"id": 50'],
        "MALFORMED_BOX": ['"id": 52', '"id": 55'],
        "MALFORMED_ANNOTATION": ['"id": 53', '"id": 56', '"id": 57'],
        "BOX_NOT_FINITE": ['"id": 54'],
        "MALFORMED_CATEGORY": ['"name": "no id"'],
    }
    expected = {(code, name, line_of(file, text)) for code, texts in where.items() for text in texts}
    assert told(root, Task.DETECTION) == expected | {("EMPTY_CLASS", ".", 0)}
    file.write_text('{"images": [],\n "annotations": [],\n "categories": [}')
    assert ("MALFORMED_FILE", name, 3) in told(root, Task.DETECTION)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [96, 96], "counts": [96 * 96 + 5]},
        {"size": [96, 96], "counts": [-5, 96 * 96 + 5]},
        {"size": [96, 96], "counts": "not~runs"},
        {"size": [96, 96], "counts": "o" * 200},
        {"size": [10, 10], "counts": [100]},
        {"size": [2**31, 2**31], "counts": [2**62]},
        {"size": [96, 96], "counts": [float("inf")]},
        {"size": [96, 96], "counts": "o" * 100_000},
        [[-1e5, 0, 1e5, 0] * 40_000],
        [[10**400, 0, 5, 5, 9, 0]],
        [[1, 2, 3]],
        [["a", "b", "c", "d", "e", "f"]],
        [],
    ],
    ids=lambda shape: str(shape)[:60],
)
def test_broken_regions_are_errors_and_never_a_crash(shape, tmp_path: Path) -> None:
    root = write_coco(detection_scenes(4), tmp_path)

    def edit(content: dict) -> None:
        for one in content["annotations"]:
            one["segmentation"] = shape

    for file in (root / "annotations").iterdir():
        change(file, edit)
    found = scan(root, Task.SEGMENTATION)
    told = [one for one in found.errors if one.code in {"MALFORMED_MASK", "MALFORMED_POLYGON", "MASK_SIZE"}]
    assert told
    for finding in told:
        assert '"segmentation"' in (root / finding.path).read_text().splitlines()[finding.line - 1]


def test_every_fault_of_a_yolo_export(tmp_path: Path) -> None:
    root = write_yolo(DETECTION, tmp_path)
    file = sorted((root / "train" / "labels").iterdir())[0]
    name = file.relative_to(root).as_posix()
    rows = file.read_text().splitlines()
    more = ["7 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "zero 0.5 0.5 0.1 0.1", "0 0.5 0.5 nan 0.1", rows[0]]
    more += ["0 1.8 0.5 0.1 0.1", "0 0.5 0.5 0.1 0"]
    file.write_text("\n".join(rows + more))
    (root / "train" / "labels" / "lonely.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    codes = ["UNKNOWN_CLASS", "MALFORMED_ROW", "MALFORMED_ROW", "BOX_NOT_FINITE", "DUPLICATE_ANNOTATION", "BOX_OUTSIDE"]
    codes += ["BOX_WITHOUT_AREA"]
    expected = {(code, name, len(rows) + 1 + offset) for offset, code in enumerate(codes)}
    assert told(root, Task.DETECTION) == expected | {("MISSING_IMAGE", "train/labels/lonely.txt", 0)}
    assert "NOT_A_POLYGON" in {finding.code for finding in scan(root, Task.SEGMENTATION).errors}
    file.write_text("0 0.1 0.1 0.2 0.1 0.2 0.2\n0 nan 0.1 0.2 0.1 0.2 0.2\n")
    assert ("POLYGON_NOT_FINITE", name, 2) in told(root, Task.SEGMENTATION)


def test_a_yaml_that_leads_elsewhere_or_makes_objects_is_refused(tmp_path: Path) -> None:
    root = write_yolo(DETECTION, tmp_path / "data")
    outside = tmp_path / "outside"
    write_yolo(DETECTION, outside)
    config = root / "data.yaml"
    config.write_text(f"train: {outside}/train/images\nval: ../val/images\nnames: [circle, square]\n")
    assert ("PATH_ESCAPE", "data.yaml", 0) in told(root, Task.DETECTION)
    config.write_text("train: ../../outside/train/images\nval: val/images\nnames: [circle, square]\n")
    assert ("PATH_ESCAPE", "data.yaml", 0) in told(root, Task.DETECTION)
    # Twelve lines of ten merges each would be a dictionary of 10^12 entries.
    merges = "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 10)}]}}\n" for n in range(12))
    for hostile in ("names: !!python/object/apply:os.system ['true']\n", "a0: &a0 {x: 1}\n" + merges + "names: [a]\n"):
        config.write_text(hostile)
        assert "UNKNOWN_FORMAT" in {finding.code for finding in scan(root, Task.DETECTION).errors}


def test_every_fault_of_a_voc_folder(tmp_path: Path) -> None:
    root = write_voc(DETECTION, tmp_path)
    files = sorted((root / "Annotations").iterdir())
    text = files[0].read_text()
    files[0].write_text(text.replace("<xmin>", "<xmin>x").replace("<object>", "<object>\n", 1))
    files[1].write_text(files[1].read_text().replace("</object>", ""))
    files[2].write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + files[2].read_text())
    files[3].write_text(files[3].read_text().replace("<filename>0003.png", "<filename>../../../../etc/passwd"))
    with (root / "ImageSets" / "Main" / "train.txt").open("a") as lists:
        lists.write("9999\n")
    found = told(root, Task.DETECTION)
    line = text.splitlines().index("<object>") + 1
    assert {
        ("MALFORMED_BOX", "Annotations/0000.xml", line),
        ("PATH_ESCAPE", "Annotations/0003.xml", 0),
        ("MALFORMED_FILE", "Annotations/0002.xml", 0),
        ("MISSING_IMAGE", "ImageSets/Main/train.txt", 5),
    } <= found
    assert any(code == "MALFORMED_FILE" and path == "Annotations/0001.xml" and at > 0 for code, path, at in found)


def test_every_fault_of_masks(tmp_path: Path) -> None:
    root = write_masks(segmentation_scenes(8), tmp_path)
    train = root / "masks" / "train"
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(train / "0000.png")
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(train / "0001.png")
    (train / "0002.png").write_bytes((train / "0002.png").read_bytes()[:40])
    huge = (train / "0003.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + huge[24:29]
    (train / "0003.png").write_bytes(huge[:12] + header + struct.pack(">I", zlib.crc32(header)) + huge[33:])
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(train / "lonely.png")
    (root / "masks" / "val" / "0004.png").unlink()
    errors = {(finding.code, finding.path) for finding in scan(root, Task.SEGMENTATION).findings}
    assert {
        ("MASK_VALUE", "masks/train/0000.png"),
        ("MASK_SIZE", "masks/train/0001.png"),
        ("CORRUPT_MASK", "masks/train/0002.png"),
        ("IMAGE_TOO_LARGE", "masks/train/0003.png"),
        ("MISSING_IMAGE", "masks/train/lonely.png"),
        ("IMAGE_WITHOUT_ANNOTATION", "images/val/0004.png"),
    } <= errors


def test_links_and_hidden_files_are_never_read(tmp_path: Path) -> None:
    root = write_csv(classification_scenes(4, 2), tmp_path / "data")
    secret = tmp_path / "secret.png"
    texture(np.random.default_rng(3), 64, 64).save(secret)
    (root / "images" / "link.png").symlink_to(secret)
    (root / "images" / ".hidden.png").write_bytes(secret.read_bytes())
    with (root / "data.csv").open("a") as file:
        file.write("images/link.png,circle,train\nimages/.hidden.png,circle,train\n")
    found = scan(root, Task.CLASSIFICATION)
    codes = Counter(finding.code for finding in found.errors)
    assert codes == {"SYMLINK": 1, "MISSING_IMAGE": 2}
    assert not any("link" in sample.path or "hidden" in sample.path for sample in found.samples)


def test_near_copies_across_given_splits_are_told_and_stay_together_when_carved(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / "given" / split / name).mkdir(parents=True)
            for number in range(6):
                picture = scene(generator)
                picture.save(tmp_path / "given" / split / name / f"{number}.png")
    whole = tmp_path / "given" / "train" / "ant" / "0.png"
    with Image.open(whole) as picture:
        buffer = io.BytesIO()
        picture.resize((60, 60)).save(buffer, "JPEG", quality=80)
    (tmp_path / "given" / "val" / "ant" / "copy.jpg").write_bytes(buffer.getvalue())
    found = {(finding.code, finding.path) for finding in scan(tmp_path / "given").findings}
    assert found == {("NEAR_DUPLICATE_LEAK", "val/ant/copy.jpg")}

    carved = tmp_path / "carved"
    for name in ("ant", "bee"):
        (carved / name).mkdir(parents=True)
        for number in range(12):
            picture = scene(generator)
            picture.save(carved / name / f"{number}.png")
            picture.save(carved / name / f"{number}-again.jpg", quality=75)
    for seed in range(4):
        result = scan(carved, seed=seed)
        assert "NEAR_DUPLICATE_LEAK" not in {finding.code for finding in result.findings}
        together = {sample.path.split(".")[0].removesuffix("-again"): sample.split for sample in result.samples}
        assert all(
            together[sample.path.split(".")[0].removesuffix("-again")] is sample.split for sample in result.samples
        )
        assert {sample.split for sample in result.samples} == set(Split)


def scene(generator: np.random.Generator) -> Image.Image:
    """Smooth patches, as photos have."""
    cells = generator.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((128, 128), Image.Resampling.BICUBIC)


def test_a_rare_class_of_boxes_is_in_every_split_that_it_fills(tmp_path: Path) -> None:
    scenes = detection_scenes(60, 3, objects=1, val=0, test=0, side=48)
    root = write_voc(scenes, tmp_path)
    for file in (root / "ImageSets" / "Main").iterdir():
        file.unlink()
    found = scan(root, Task.DETECTION, seed=5)
    assert not found.errors
    for one in found.statistics.classes:
        assert all(count > 0 for count in one.splits), one
    counts = Counter(sample.split for sample in found.samples)
    assert counts[Split.VAL] == counts[Split.TEST] == 9
    again = scan(root, Task.DETECTION, seed=5, threads=1)
    assert [sample.split for sample in again.samples] == [sample.split for sample in found.samples]


def test_imbalance_is_a_warning(tmp_path: Path) -> None:
    scenes = classification_scenes(24, 2, val=0, test=0)
    root = write_class_folders(scenes, tmp_path)
    for number in range(2, 24):
        (root / "square" / f"{number:04d}.png").unlink()
    (finding,) = scan(root).findings
    assert (finding.code, finding.severity) == ("CLASS_IMBALANCE", Severity.WARNING)


def test_text_that_is_none_is_a_finding(tmp_path: Path) -> None:
    root = write_voc(detection_scenes(6), tmp_path / "voc")
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe\x00bad")
    assert ("MALFORMED_FILE", "ImageSets/Main/train.txt", 0) in told(root, Task.DETECTION)
    root = write_csv(classification_scenes(4, 2), tmp_path / "csv")
    with (root / "data.csv").open("ab") as file:
        file.write(b"images/\xff\xfe.png,circle,train\n")
    assert ("MALFORMED_FILE", "data.csv", 0) in told(root, Task.CLASSIFICATION)


def test_a_thousand_frames_of_one_film_end_soon_and_are_told(tmp_path: Path) -> None:
    still = np.asarray(scene(np.random.default_rng(2)).resize((48, 48)))
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(300):
            frame = still.copy()
            frame[number % 48, number // 48] = 255 if name == "ant" else 0
            Image.fromarray(frame).save(tmp_path / name / f"{number}.png")
    found = scan(tmp_path)
    assert not found.errors
    assert "MANY_NEAR_DUPLICATES" in {finding.code for finding in found.findings}
    assert {sample.split for sample in found.samples} == set(Split)
