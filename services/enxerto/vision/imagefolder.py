"""Read a folder of class subfolders, check every image, and split it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from enxerto.vision.datasets.findings import Finding, Severity
from enxerto.vision.datasets.scans import Sample, Scan
from enxerto.vision.datasets.statistics import Occurrences, summarise
from enxerto.vision.images import DEFAULT_LIMITS, EXTENSIONS, ImageError, ImageLimits, decode, sniff
from enxerto.vision.specs import Split, Task

_IN_FLIGHT_PER_THREAD: Final = 4
_IMAGE_EXTENSIONS: Final = frozenset(extension for group in EXTENSIONS.values() for extension in group)
# Pictures of a format that we do not read: an error, because leaving them out would quietly shrink the dataset.
_FOREIGN_EXTENSIONS: Final = frozenset({".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".tga"})
_SPLIT_FOLDERS: Final = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "test": Split.TEST,
}


@dataclass(frozen=True, slots=True)
class SplitFractions:
    """Part of each class that goes to each split; training gets the rest."""

    val: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise ValueError("val must be in (0, 1), test in [0, 1), and both together below 1")


@dataclass(frozen=True, slots=True)
class _Candidate:
    file: Path
    path: str
    class_name: str
    split: Split | None


def scan(
    root: Path,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    fractions: SplitFractions = SplitFractions(),
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Find, decode and split the images below `root`.

    The layout is `class/**/image`, or `train|val|test/class/**/image`, whose splits are kept; a split folder that is
    missing is carved out of training. A single folder around all of it is looked through. Hidden files are skipped.

    Args:
        root: folder to read.
        limits: per image.
        fractions: of a class for validation and test.
        seed: of the split; the same images and seed always give the same split.
        threads: that decode; one per core when None.
        progress: told (images done, images in all) from this thread; may raise to stop.

    Raises:
        NotADirectoryError: `root` is not a folder.
    """
    if not root.is_dir():
        raise NotADirectoryError(root)
    root = _unwrap(root.resolve())
    findings: list[Finding] = []
    candidates, class_folders = _collect(root, findings)
    class_names = tuple(sorted(class_folders))
    labels = {name: label for label, name in enumerate(class_names)}
    if len(class_names) < 2:
        message = f"needs at least two class folders with images, has {len(class_names)}"
        findings.append(Finding(".", Severity.ERROR, "TOO_FEW_CLASSES", message))

    readable: list[tuple[_Candidate, Sample]] = []
    for done, (candidate, outcome) in enumerate(_examine_all(candidates, labels, limits, threads), start=1):
        sample, found = outcome
        findings.extend(found)
        if sample is not None:
            readable.append((candidate, sample))
        if progress is not None:
            progress(done, len(candidates))

    per_class: dict[str, int] = defaultdict(int)
    for candidate, _ in readable:
        per_class[candidate.class_name] += 1
    for name in class_names:
        folder = class_folders[name]
        listed = any(candidate.class_name == name for candidate in candidates)
        if not listed:
            findings.append(Finding(folder, Severity.ERROR, "EMPTY_CLASS", "holds no images"))
        elif per_class[name] < 2:
            message = f"needs at least two readable images, has {per_class[name]}"
            findings.append(Finding(folder, Severity.ERROR, "TOO_FEW_IMAGES", message))
    samples = _assign_splits(readable, fractions, seed)
    findings.extend(_cross_checks(samples, class_names))
    statistics = summarise(
        "IMAGE_FOLDER", class_names, (Occurrences(s.split, s.labels, 1, max(s.width, s.height)) for s in samples)
    )
    return Scan(
        root=root,
        task=Task.CLASSIFICATION,
        class_names=class_names,
        samples=tuple(sorted(samples, key=lambda sample: sample.path)),
        findings=tuple(sorted(findings, key=lambda finding: (finding.path, finding.code))),
        statistics=statistics,
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))


def _unwrap(root: Path) -> Path:
    """Step into a lone folder that holds folders, as archives of a dataset have."""
    entries = _visible(root)
    while len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        inner = _visible(entries[0])
        if not inner or not all(entry.is_dir() for entry in inner):
            break
        root, entries = entries[0], inner
    return root


def _collect(root: Path, findings: list[Finding]) -> tuple[list[_Candidate], dict[str, str]]:
    folders: list[Path] = []
    for entry in _visible(root):
        if entry.is_dir() and not _escapes(entry, root, findings):
            folders.append(entry)
        elif entry.is_file():
            message = "lies outside the class folders and is skipped"
            findings.append(Finding(entry.name, Severity.WARNING, "STRAY_FILE", message))
    splits = {folder: _SPLIT_FOLDERS.get(folder.name.lower()) for folder in folders}
    given = bool(folders) and Split.TRAIN in splits.values() and None not in splits.values() and len(folders) > 1
    candidates: list[_Candidate] = []
    classes: dict[str, str] = {}
    if not given:
        for folder in folders:
            classes[folder.name] = folder.name
            candidates.extend(_images(folder, root, folder.name, None, findings))
        return candidates, classes
    for split_folder, split in splits.items():
        for folder in _visible(split_folder):
            path = folder.relative_to(root).as_posix()
            if folder.is_dir() and not _escapes(folder, root, findings):
                if split is Split.TRAIN or folder.name not in classes:
                    classes[folder.name] = path
                candidates.extend(_images(folder, root, folder.name, split, findings))
            elif folder.is_file():
                message = "lies outside the class folders and is skipped"
                findings.append(Finding(path, Severity.WARNING, "STRAY_FILE", message))
    trained = {candidate.class_name for candidate in candidates if candidate.split is Split.TRAIN}
    for name in sorted(set(classes) - trained):
        if any(candidate.class_name == name for candidate in candidates):
            message = f"class {name!r} has images to evaluate but none to train on"
            findings.append(Finding(classes[name], Severity.ERROR, "CLASS_NOT_IN_TRAIN", message))
    return candidates, classes


def _escapes(entry: Path, root: Path, findings: list[Finding]) -> bool:
    """Whether the entry leads out of the root, or around in a circle; noted as a finding."""
    if not entry.is_symlink():
        return False
    path = entry.relative_to(root).as_posix()
    # Links that stay inside would count the same picture twice, perhaps in two splits: refused alike.
    findings.append(Finding(path, Severity.ERROR, "SYMLINK", "is a symbolic link; put the files themselves here"))
    return True


def _images(
    folder: Path, root: Path, class_name: str, split: Split | None, findings: list[Finding]
) -> Iterator[_Candidate]:
    for parent, folder_names, file_names in os.walk(folder, followlinks=False):
        here = Path(parent)
        folder_names[:] = sorted(
            name for name in folder_names if not _is_hidden(name) and not _escapes(here / name, root, findings)
        )
        for name in sorted(file_names):
            file = here / name
            if _is_hidden(name) or _escapes(file, root, findings):
                continue
            path = file.relative_to(root).as_posix()
            if not file.is_file():
                findings.append(Finding(path, Severity.ERROR, "SPECIAL_FILE", "is not a plain file"))
            else:
                yield _Candidate(file, path, class_name, split)


_Outcome = tuple[Sample | None, tuple[Finding, ...]]


def _examine_all(
    candidates: Sequence[_Candidate], labels: Mapping[str, int], limits: ImageLimits, threads: int | None
) -> Iterator[tuple[_Candidate, _Outcome]]:
    """In order, with a bounded number of images in memory."""
    count = threads or os.cpu_count() or 1
    waiting = iter(candidates)
    running: list[tuple[_Candidate, Future[_Outcome]]] = []
    # PIL decodes outside the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(count, thread_name_prefix="scan") as pool:
        while True:
            for candidate in islice(waiting, count * _IN_FLIGHT_PER_THREAD - len(running)):
                running.append((candidate, pool.submit(_examine, candidate, labels[candidate.class_name], limits)))
            if not running:
                return
            candidate, future = running.pop(0)
            yield candidate, future.result()


def _examine(candidate: _Candidate, label: int, limits: ImageLimits) -> _Outcome:
    path, extension = candidate.path, candidate.file.suffix.lower()

    def finding(severity: Severity, code: str, message: str) -> Finding:
        return Finding(path, severity, code, message)

    try:
        with candidate.file.open("rb") as file:
            data = file.read(limits.size_bytes + 1)
    except OSError as error:
        return None, (finding(Severity.ERROR, "UNREADABLE_FILE", f"cannot be read: {error.strerror}"),)
    kind = sniff(data)
    if kind is None and extension not in _IMAGE_EXTENSIONS and extension not in _FOREIGN_EXTENSIONS:
        return None, (finding(Severity.WARNING, "NOT_AN_IMAGE", "is not an image and is skipped"),)
    try:
        image = decode(data, limits)
    except ImageError as error:
        return None, (finding(Severity.ERROR, error.reason, str(error)),)
    notes: tuple[Finding, ...] = ()
    if kind is not None and extension not in EXTENSIONS[kind]:
        notes = (finding(Severity.WARNING, "WRONG_EXTENSION", f"is a {kind} by content"),)
    digest = hashlib.sha256(data).hexdigest()
    split = candidate.split or Split.TRAIN
    return Sample(path, split, digest, image.width, image.height, len(data), label), notes


def _assign_splits(readable: Sequence[tuple[_Candidate, Sample]], fractions: SplitFractions, seed: int) -> list[Sample]:
    """Stratified by class; copies of one picture stay together, so that none is both trained on and evaluated."""
    given = {candidate.split for candidate, _ in readable if candidate.split is not None}
    carved = [split for split in (Split.VAL, Split.TEST) if split not in given]
    groups: dict[int, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    assigned: list[Sample] = []
    for _, sample in readable:
        if sample.split is Split.TRAIN:
            groups[sample.label or 0][sample.sha256].append(sample)
        else:
            assigned.append(sample)
    for by_digest in groups.values():
        order = sorted(by_digest, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest())
        wanted = {Split.VAL: fractions.val, Split.TEST: fractions.test}
        start = 0
        for split in carved:
            left = len(order) - start
            # Training always keeps one picture; validation comes before test when there are too few for both.
            share = min(max(1, round(wanted[split] * len(order))), left - 1) if wanted[split] > 0 else 0
            for digest in order[start : start + share]:
                assigned.extend(replace(sample, split=split) for sample in by_digest[digest])
            start += share
        for digest in order[start:]:
            assigned.extend(by_digest[digest])
    return assigned


def _cross_checks(samples: Sequence[Sample], class_names: Sequence[str]) -> Iterator[Finding]:
    by_digest: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_digest[sample.sha256].append(sample)
    for copies in by_digest.values():
        first, *others = sorted(copies, key=lambda sample: sample.path)
        for other in others:
            if other.label != first.label:
                message = f"is the same picture as {first.path}, of class {class_names[first.label or 0]!r}"
                yield Finding(other.path, Severity.WARNING, "CONFLICTING_LABEL", message)
            elif other.split is not first.split:
                message = f"is the same picture as {first.path}, which is in {first.split}"
                yield Finding(other.path, Severity.WARNING, "SPLIT_LEAK", message)
