"""CSV: `path,label[,split]`, `path[,split]` and a column of 0 and 1 for each class, or a row for each box:
`path,x_min,y_min,x_max,y_max,label[,split]`.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.pictures import DrawnBox, Format, Picture, Reading
from enxerto.vision.datasets.tree import PathEscapeError, Tree, split_named
from enxerto.vision.specs import Split, Task

_COLUMNS: Final = {
    "path": ("path", "filepath", "imagepath", "file", "filename", "image", "imagename", "img", "imageid", "name", "id"),
    "label": ("label", "class", "classname", "category", "categoryname", "labelname", "target"),
    "split": ("split", "set", "subset", "partition"),
    "x_min": ("xmin", "x1", "left", "minx", "bboxxmin"),
    "y_min": ("ymin", "y1", "top", "miny", "bboxymin"),
    "x_max": ("xmax", "x2", "right", "maxx", "bboxxmax"),
    "y_max": ("ymax", "y2", "bottom", "maxy", "bboxymax"),
}
_MAX_BYTES: Final = 2**30
_MAX_DIGITS: Final = 18
_EDGES: Final = ("x_min", "y_min", "x_max", "y_max")
_NO, _YES = {"0", "0.0"}, {"1", "1.0"}
_LOOKED_AT: Final = 65_536
"""Bytes that tell a table of 0 and 1 from one of other numbers."""


@dataclass(frozen=True, slots=True)
class _Layout:
    delimiter: str
    columns: dict[str, int]
    """Positions by meaning."""
    classes: dict[str, int]
    """Positions of the columns that hold 0 or 1, by class; none where a column holds the label."""

    def fits(self, task: Task) -> bool:
        return task is Task.CLASSIFICATION or (not self.classes and all(edge in self.columns for edge in _EDGES))

    @property
    def width(self) -> int:
        return 1 + max((*self.columns.values(), *self.classes.values()))


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    values: dict[str, str]


@dataclass(slots=True)
class _Named:
    """What is known of one picture before the class names are."""

    picture: Picture
    labels: dict[str, int] = field(default_factory=dict)
    boxes: list[tuple[str, tuple[float, float, float, float], int]] = field(default_factory=list)


def _layout(tree: Tree, file: str) -> _Layout | None:
    """What the columns are; None when it is not a table of ours."""
    try:
        # In bytes: a text file decodes ahead, and a bad letter further down is told with the rows.
        with (tree.root / file).open("rb") as content:
            lines = content.read(_LOOKED_AT).decode("utf-8-sig", "replace").splitlines()
        delimiter = max(",;\t", key=lines[0].count) if lines else ","
        # The last line may be cut off.
        given, *rows = csv.reader(lines[:-1] if len(lines) > 2 else lines, delimiter=delimiter)
    except (OSError, csv.Error, ValueError):
        # When nothing else fits either, that is what is told.
        return None
    plain = ["".join(letter for letter in name.lower() if letter.isalnum()) for name in given]
    found: dict[str, int] = {}
    for meaning, names in _COLUMNS.items():
        position = next((plain.index(name) for name in names if name in plain), None)
        if position is not None:
            found[meaning] = position
    if {"path", "label"} <= found.keys():
        return _Layout(delimiter, found, {})
    classes = {name.strip(): position for position, name in enumerate(given) if position not in found.values()}
    values = {value.strip() for row in rows for position in classes.values() for value in row[position : position + 1]}
    if "path" in found and len(classes) > 1 and values and values <= _NO | _YES:
        return _Layout(delimiter, found, classes)
    return None


def _tables(tree: Tree, task: Task) -> list[tuple[str, _Layout]]:
    found = ((file, _layout(tree, file)) for file in tree.named(".csv", ".tsv"))
    return [(file, layout) for file, layout in found if layout is not None and layout.fits(task)]


def _recognise(tree: Tree, task: Task) -> str | None:
    files = [file for file, _ in _tables(tree, task)]
    return ", ".join(files[:5]) if files else None


def _rows(tree: Tree, file: str, layout: _Layout, findings: list[Finding]) -> Iterator[_Row]:
    if (tree.root / file).stat().st_size > _MAX_BYTES:
        findings.append(error(file, "MALFORMED_FILE", f"is larger than {_MAX_BYTES} bytes"))
        return
    try:
        with (tree.root / file).open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, delimiter=layout.delimiter)
            next(reader)
            for row in reader:
                if not any(value.strip() for value in row):
                    continue
                if len(row) < layout.width:
                    message = f"has {len(row)} columns, expected at least {layout.width}"
                    findings.append(error(file, "MALFORMED_ROW", message, reader.line_num))
                    continue
                values = {name: row[position].strip() for name, position in layout.columns.items()}
                if layout.classes:
                    marks = {name: row[position].strip() for name, position in layout.classes.items()}
                    if (label := _marked(marks, file, reader.line_num, findings)) is None:
                        continue
                    values["label"] = label
                yield _Row(reader.line_num, values)
    except (UnicodeDecodeError, csv.Error) as problem:
        findings.append(error(file, "MALFORMED_FILE", f"cannot be read: {problem}"))


def _marked(marks: dict[str, str], file: str, line: int, findings: list[Finding]) -> str | None:
    """The class with a 1, empty where none has one; None after an error."""
    strange = set(marks.values()) - _NO - _YES
    if strange:
        findings.append(error(file, "MALFORMED_ROW", f"{min(strange)!r} is neither 0 nor 1", line))
        return None
    labels = [name for name, mark in marks.items() if mark in _YES]
    if len(labels) > 1:
        findings.append(error(file, "CONFLICTING_LABEL", f"is of several classes: {', '.join(labels)}", line))
        return None
    return labels[0] if labels else ""


class _Reader:
    def __init__(self, tree: Tree, task: Task) -> None:
        self._tree = tree
        self._task = task
        self._findings: list[Finding] = []
        self._named: dict[str, _Named] = {}

    def read(self) -> Reading:
        tables = _tables(self._tree, self._task)
        for file, layout in tables:
            for row in _rows(self._tree, file, layout, self._findings):
                self._add_row(file, row)
        known = self._named.values()
        used = {label for one in known for label in (*one.labels, *(box[0] for box in one.boxes))}
        for file, layout in tables:
            if unused := layout.classes.keys() - used:
                message = f"no picture is of {', '.join(sorted(unused))}, which is left out"
                self._findings.append(warning(file, "EMPTY_CLASS", message))
        numeric = all(label.isdecimal() and len(label) <= _MAX_DIGITS for label in used)
        names = tuple(sorted(used, key=lambda label: (int(label), label) if numeric else (0, label)))
        position = {name: label for label, name in enumerate(names)}
        for one in known:
            picture = one.picture
            if self._task is Task.CLASSIFICATION and one.labels:
                picture.label = position[next(iter(one.labels))]
            picture.boxes = [DrawnBox(position[name], *edges, line=line) for name, edges, line in one.boxes]
            picture.annotated = self._task is Task.CLASSIFICATION or bool(picture.boxes)
        unlisted = [path for path in self._tree.images if path not in self._named]
        if unlisted:
            message = f"{len(unlisted)} pictures are in no row and are skipped, such as {unlisted[0]}"
            self._findings.append(warning(".", "UNLISTED_IMAGES", message))
        return Reading(names, [one.picture for one in known], self._findings)

    def _add_row(self, file: str, row: _Row) -> None:
        given = row.values.get("split", "")
        split = split_named(given) if given else split_named(posixpath.splitext(posixpath.basename(file))[0])
        if given and split is None:
            self._findings.append(error(file, "UNKNOWN_SPLIT", f"{given!r} is not train, val or test", row.line))
            return
        path = self._locate(file, row, split)
        if path is None:
            return
        one = self._named.setdefault(path, _Named(Picture(path, split, origin=file, line=row.line)))
        if one.picture.split is not split:
            message = f"{path} is in {split or 'no split'} here and in {one.picture.split or 'no split'} before"
            self._findings.append(error(file, "CONFLICTING_SPLIT", message, row.line))
        if self._task is Task.CLASSIFICATION:
            self._add_label(one, file, row)
        else:
            self._add_box(one, file, row)

    def _locate(self, file: str, row: _Row, split: Split | None) -> str | None:
        reference = row.values["path"]
        folder = posixpath.dirname(file)
        try:
            path = self._tree.locate(reference, (folder, ".", posixpath.join(folder, "images"), "images"), split)
        except PathEscapeError as escape:
            self._findings.append(error(file, "PATH_ESCAPE", str(escape), row.line))
            return None
        if path is None:
            self._findings.append(error(file, "MISSING_IMAGE", f"there is no picture {reference!r}", row.line))
        return path

    def _add_label(self, one: _Named, file: str, row: _Row) -> None:
        label, path = row.values["label"], one.picture.path
        if not label:
            self._findings.append(error(file, "EMPTY_LABEL", f"{path} has no label", row.line))
        elif label in one.labels:
            message = f"{path} has this label already in line {one.labels[label]}"
            self._findings.append(warning(file, "DUPLICATE_ANNOTATION", message, row.line))
        elif one.labels:
            other, where = next(iter(one.labels.items()))
            message = f"{path} is {label!r} here and {other!r} in line {where}"
            self._findings.append(error(file, "CONFLICTING_LABEL", message, row.line))
        else:
            one.labels[label] = row.line

    def _add_box(self, one: _Named, file: str, row: _Row) -> None:
        label, texts = row.values["label"], [row.values[edge] for edge in _EDGES]
        if not label and not any(texts):
            # A row with a path alone says that the picture is background.
            return
        try:
            x_min, y_min, x_max, y_max = (float(text) for text in texts)
        except ValueError:
            self._findings.append(error(file, "MALFORMED_ROW", f"{texts} are not four numbers", row.line))
            return
        if not label:
            message = f"a box of {one.picture.path} has no label"
            self._findings.append(error(file, "EMPTY_LABEL", message, row.line))
            return
        one.boxes.append((label, (x_min, y_min, x_max, y_max), row.line))


def _read(tree: Tree, task: Task) -> Reading:
    return _Reader(tree, task).read()


CSV: Final = Format(
    "CSV",
    frozenset({Task.CLASSIFICATION, Task.DETECTION}),
    "CSV with the columns path,label[,split], path[,split] and one of 0 and 1 for each class, or "
    "path,x_min,y_min,x_max,y_max,label[,split]",
    _recognise,
    _read,
)
