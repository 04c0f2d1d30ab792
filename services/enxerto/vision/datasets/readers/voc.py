"""Pascal VOC: `Annotations/*.xml` beside `JPEGImages/`, splits in `ImageSets/Main/`."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat

from enxerto.vision.datasets.findings import Finding, error
from enxerto.vision.datasets.pictures import DrawnBox, Format, Picture, Reading
from enxerto.vision.datasets.tree import PathEscapeError, Tree, split_named, split_of, stem
from enxerto.vision.specs import Split, Task

_MAX_XML_BYTES: Final = 8 * 2**20
_MAX_DIGITS: Final = 9


@dataclass(slots=True)
class _Object:
    line: int
    fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Document:
    """What one XML file says, as text."""

    filename: str = ""
    size: dict[str, str] = field(default_factory=dict)
    objects: list[_Object] = field(default_factory=list)


class _Parser:
    """Keeps the few fields that matter, with lines; declares no entities, so none can grow."""

    def __init__(self) -> None:
        self.document = _Document()
        self._path: list[str] = []
        self._text: list[str] = []
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text.append

    def parse(self, data: bytes) -> _Document:
        self._parser.Parse(data, True)
        if self._root != "annotation":
            raise ValueError(f"the root element is {self._root!r}, expected 'annotation'")
        return self.document

    _root = ""

    def _doctype(self, *_: Any) -> None:
        raise ValueError("has a document type declaration, which annotations do not need")

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._root = self._root or name
        self._path.append(name)
        self._text.clear()
        if self._path[1:] == ["object"]:
            self.document.objects.append(_Object(self._parser.CurrentLineNumber))

    def _end(self, _name: str) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        match self._path[1:]:
            case ["filename"]:
                self.document.filename = text
            case ["size", side]:
                self.document.size[side] = text
            # The parts of a person are objects of their own, which nobody asks for.
            case ["object", name] | ["object", "bndbox", name]:
                self.document.objects[-1].fields[name] = text
        self._path.pop()


def _documents(tree: Tree) -> list[str]:
    return [file for file in tree.named(".xml") if _looks_right(tree, file)]


def _looks_right(tree: Tree, file: str) -> bool:
    with (tree.root / file).open("rb") as opened:
        return b"<annotation" in opened.read(4096)


def _recognise(tree: Tree, _task: Task) -> str | None:
    for file in tree.named(".xml"):
        if _looks_right(tree, file):
            return f"{posixpath.dirname(file) or '.'}/*.xml"
    return None


def _set_of(tree: Tree, folder: str) -> tuple[dict[str, Split], list[tuple[str, str, int]]]:
    """Pictures' stems to splits, and every entry with its file and line."""
    splits: dict[str, Split] = {}
    entries = []
    for file in tree.named(".txt"):
        if f"ImageSets/{folder}/" not in file or stem(file) not in ("train", "val", "test"):
            continue
        split = split_named(stem(file))
        assert split is not None
        for number, line in enumerate(tree.read_text(file).splitlines(), start=1):
            # A second column says whether the picture holds the class of the list.
            if words := line.split():
                splits.setdefault(words[0], split)
                entries.append((words[0], file, number))
    return splits, entries


def read_sets(tree: Tree, folder: str) -> dict[str, Split]:
    """The splits of `ImageSets/<folder>`: pictures' names without extension; empty without lists."""
    return _set_of(tree, folder)[0]


def _read(tree: Tree, task: Task) -> Reading:
    findings: list[Finding] = []
    splits, entries = _set_of(tree, "Main")
    parsed: list[tuple[Picture, str, _Document]] = []
    taken: dict[str, str] = {}
    for file in _documents(tree):
        if splits and stem(file) not in splits:
            continue
        document = _parse(tree, file, findings)
        if document is None:
            continue
        split = splits.get(stem(file)) or split_of(file)
        path = _picture(tree, file, document, split, findings)
        if path is None:
            continue
        if path in taken:
            message = f"describes {path}, which {taken[path]} describes already"
            findings.append(error(file, "DUPLICATE_IMAGE", message))
            continue
        taken[path] = file
        parsed.append((Picture(path, split, origin=file, size=_size(document)), file, document))
    names = tuple(sorted({one.fields.get("name", "") for _, _, document in parsed for one in document.objects} - {""}))
    labels = {name: label for label, name in enumerate(names)}
    reading = Reading(names, findings=findings)
    for picture, file, document in parsed:
        for one in document.objects:
            _add_box(file, one, picture, labels, findings)
        picture.annotated = bool(picture.boxes)
        reading.pictures.append(picture)
    _add_bare(tree, reading, set(taken), splits)
    _check_lists(reading, entries)
    return reading


def _parse(tree: Tree, file: str, findings: list[Finding]) -> _Document | None:
    try:
        path = tree.root / file
        if path.stat().st_size > _MAX_XML_BYTES:
            raise ValueError(f"is larger than {_MAX_XML_BYTES} bytes")
        return _Parser().parse(path.read_bytes())
    except expat.ExpatError as problem:
        message = f"is not XML: {expat.ErrorString(problem.code)}"
        findings.append(error(file, "MALFORMED_FILE", message, problem.lineno))
    except ValueError as problem:
        findings.append(error(file, "MALFORMED_FILE", str(problem)))
    return None


def _picture(tree: Tree, file: str, document: _Document, split: Split | None, findings: list[Finding]) -> str | None:
    folder = posixpath.dirname(file)
    parent = posixpath.dirname(folder)
    folders = [posixpath.join(parent, "JPEGImages"), posixpath.join(parent, "images"), folder, parent, "."]
    home = _home(tree, folder)
    try:
        path = tree.locate(posixpath.join(home, document.filename), folders, split) if document.filename else None
        # Copies keep the old name inside: the file's own name is the better guess then.
        path = path or tree.locate(posixpath.join(home, stem(file)), folders, split)
    except PathEscapeError as escape:
        findings.append(error(file, "PATH_ESCAPE", str(escape)))
        return None
    if path is None:
        findings.append(error(file, "MISSING_IMAGE", f"there is no picture {document.filename or stem(file)!r}"))
    return path


def _home(tree: Tree, folder: str) -> str:
    """Below `JPEGImages` what an XML file's folder is below `Annotations`; empty when no pictures are there."""
    parts = folder.split("/")
    lowered = [part.lower() for part in parts]
    if lowered[-1] == "annotations" or "annotations" not in lowered:
        return ""
    at = lowered.index("annotations")
    mirrors = ("/".join([*parts[:at], name, *parts[at + 1 :]]) for name in ("JPEGImages", "images"))
    return next((mirror for mirror in mirrors if tree.holds_pictures(mirror)), "")


def _size(document: _Document) -> tuple[int, int] | None:
    width, height = (document.size.get(side, "") for side in ("width", "height"))
    known = all(text.isdecimal() and len(text) <= _MAX_DIGITS for text in (width, height))
    return (int(width), int(height)) if known and int(width) else None


def _add_box(file: str, one: _Object, picture: Picture, labels: dict[str, int], findings: list[Finding]) -> None:
    name = one.fields.get("name", "")
    try:
        x_min, y_min, x_max, y_max = (float(one.fields[edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))
    except (KeyError, ValueError):
        findings.append(error(file, "MALFORMED_BOX", "an object needs xmin, ymin, xmax and ymax", one.line))
        return
    if not name:
        findings.append(error(file, "EMPTY_LABEL", "an object has no name", one.line))
        return
    # VOC counts pixels from 1 and includes the last one.
    picture.boxes.append(
        DrawnBox(
            labels[name], x_min - 1, y_min - 1, x_max, y_max, crowd=one.fields.get("difficult") == "1", line=one.line
        )
    )


def _add_bare(tree: Tree, reading: Reading, taken: set[str], splits: dict[str, Split]) -> None:
    """Pictures without an XML file are background, those that no list mentions are left out."""
    for path in tree.images:
        mask = posixpath.basename(posixpath.dirname(path)).lower().startswith("segmentation")
        if path in taken or mask or (splits and stem(path) not in splits):
            continue
        reading.pictures.append(Picture(path, splits.get(stem(path)) or split_of(path), annotated=False))


def _check_lists(reading: Reading, entries: list[tuple[str, str, int]]) -> None:
    known = {stem(picture.path) for picture in reading.pictures} | {
        stem(picture.origin) for picture in reading.pictures
    }
    known |= {stem(finding.path) for finding in reading.findings}
    first: dict[str, str] = {}
    for name, file, line in entries:
        if name not in known:
            reading.findings.append(error(file, "MISSING_IMAGE", f"there is no picture {name!r}", line))
        if first.setdefault(name, file) != file:
            message = f"{name} is in {first[name]} already"
            reading.findings.append(error(file, "CONFLICTING_SPLIT", message, line))


VOC: Final = Format(
    "VOC",
    frozenset({Task.DETECTION}),
    "Pascal VOC's Annotations/*.xml",
    _recognise,
    _read,
)
