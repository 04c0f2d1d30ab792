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


@dataclass(frozen=True, slots=True)
class ImageSets:
    """The lists of `ImageSets`, each of the folder around it.

    Attributes:
        splits: by that folder and the picture's name without extension.
        entries: folder, name, list and line of all that is listed.
    """

    splits: dict[str, dict[str, Split]]
    entries: list[tuple[str, str, str, int]]

    def __bool__(self) -> bool:
        return bool(self.splits)

    def of(self, path: str) -> Split | None:
        """The split of a picture or an annotation file; None when it is not listed."""
        return self.splits.get(self.around(path), {}).get(stem(path))

    def around(self, path: str) -> str:
        """The innermost folder with lists that a file is below; the first one's when it is below none."""
        below = [folder for folder in self.splits if path.startswith(folder)]
        return max(below, key=len, default=next(iter(self.splits), ""))


def read_sets(tree: Tree, folder: str) -> ImageSets:
    """The splits of `ImageSets/<folder>`; empty without lists."""
    sets = ImageSets({}, [])
    for file in tree.named(".txt"):
        around, found, _ = file.partition(f"ImageSets/{folder}/")
        if not found or stem(file) not in ("train", "val", "test"):
            continue
        split = split_named(stem(file))
        assert split is not None
        for number, line in enumerate(tree.read_text(file).splitlines(), start=1):
            # A second column says whether the picture holds the class of the list.
            if words := line.split():
                sets.splits.setdefault(around, {}).setdefault(words[0], split)
                sets.entries.append((around, words[0], file, number))
    return sets


def _read(tree: Tree, task: Task) -> Reading:
    findings: list[Finding] = []
    sets = read_sets(tree, "Main")
    parsed: list[tuple[Picture, str, _Document]] = []
    taken: dict[str, str] = {}
    for file in _documents(tree):
        if sets and sets.of(file) is None:
            continue
        document = _parse(tree, file, findings)
        if document is None:
            continue
        split = sets.of(file) or split_of(file)
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
    _add_bare(tree, reading, set(taken), sets)
    _check_lists(reading, sets)
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


def _add_bare(tree: Tree, reading: Reading, taken: set[str], sets: ImageSets) -> None:
    """Pictures without an XML file are background, those that no list mentions are left out."""
    for path in tree.images:
        mask = posixpath.basename(posixpath.dirname(path)).lower().startswith("segmentation")
        if path in taken or mask or (sets and sets.of(path) is None):
            continue
        reading.pictures.append(Picture(path, sets.of(path) or split_of(path), annotated=False))


def _check_lists(reading: Reading, sets: ImageSets) -> None:
    paths = [path for picture in reading.pictures for path in (picture.path, picture.origin)]
    paths += [finding.path for finding in reading.findings]
    known = {(sets.around(path), stem(path)) for path in paths}
    first: dict[tuple[str, str], str] = {}
    for around, name, file, line in sets.entries:
        if (around, name) not in known:
            reading.findings.append(error(file, "MISSING_IMAGE", f"there is no picture {name!r}", line))
        if first.setdefault((around, name), file) != file:
            message = f"{name} is in {first[around, name]} already"
            reading.findings.append(error(file, "CONFLICTING_SPLIT", message, line))


VOC: Final = Format(
    "VOC",
    frozenset({Task.DETECTION}),
    "Pascal VOC's Annotations/*.xml",
    _recognise,
    _read,
)
