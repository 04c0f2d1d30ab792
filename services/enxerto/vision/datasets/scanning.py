"""The front door: look at a folder for a task, and tell all that is in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from enxerto.vision.datasets.duplicates import group, near_pairs
from enxerto.vision.datasets.examination import Examined, examine
from enxerto.vision.datasets.findings import Finding, Severity, error, warning
from enxerto.vision.datasets.formats import find_format
from enxerto.vision.datasets.pictures import Reading
from enxerto.vision.datasets.rasters import RenumberedMask
from enxerto.vision.datasets.scans import Sample, Scan
from enxerto.vision.datasets.splitting import Member, SplitFractions, assign_splits
from enxerto.vision.datasets.statistics import Occurrences, summarise
from enxerto.vision.datasets.tree import Tree, UnreadableTextError
from enxerto.vision.images import DEFAULT_LIMITS, ImageLimits
from enxerto.vision.specs import Split, Task

DEFAULT_FRACTIONS: Final = SplitFractions()
_IMBALANCE: Final = 10
_MOST_UNNAMED: Final = 64
_ALIKE_AT_LEAST: Final = 20
_ALIKE_PART: Final = 0.2
_LEAKS_TOLD: Final = 1000
_MOST_PAIRS: Final = 500_000


def scan(
    root: Path,
    task: Task = Task.CLASSIFICATION,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    fractions: SplitFractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Find the format below `root`, then decode, check and split its pictures.

    Splits that the format gives are kept; a missing one is carved out of training. A single folder around all of it is
    looked through. Hidden files are skipped, links refused. Everything wrong is in the findings: nothing raises.

    Args:
        root: folder to read.
        task: decides which formats are looked for.
        limits: per image.
        fractions: of a class for validation and test.
        seed: of the split; the same images and seed always give the same split.
        threads: that decode; one per core when None.
        progress: told (images done, images in all) from this thread; may raise to stop.

    Raises:
        NotADirectoryError: `root` is not a folder.
    """
    tree = Tree(root)
    try:
        found = find_format(tree, task)
        reading = Reading(()) if isinstance(found, Finding) else found.read(tree, task)
    except UnreadableTextError as problem:
        found, reading = error(problem.path, "MALFORMED_FILE", str(problem)), Reading(())
    except PermissionError as problem:
        message = f"cannot be read: {problem.strerror}"
        found, reading = error(tree.subject(problem), "UNREADABLE_FILE", message), Reading(())
    if isinstance(found, Finding):
        return _scan(tree, task, reading, [], [*tree.findings, found])
    reading.pictures.sort(key=lambda picture: picture.path)
    findings = [*tree.findings, *reading.findings]
    examined: list[Examined] = []
    looked = examine(tree.root, reading.pictures, limits, optional_files=reading.optional_files, threads=threads)
    for done, one in enumerate(looked, start=1):
        findings.extend(one.findings)
        if one.sample is not None:
            examined.append(one)
        if progress is not None:
            progress(done, len(reading.pictures))
    if not reading.class_names and task is Task.SEGMENTATION:
        findings.extend(_name_values(reading, examined))
    samples = _split(examined, task, fractions, seed, findings)
    findings.extend(_check_classes(reading, samples, task))
    return _scan(tree, task, reading, samples, findings, kind=found.kind)


def _scan(
    tree: Tree, task: Task, reading: Reading, samples: list[Sample], findings: list[Finding], *, kind: str = ""
) -> Scan:
    def occurrences(sample: Sample) -> Occurrences:
        count = len(sample.boxes) if task is Task.DETECTION else 1
        longer = max(sample.width, sample.height)
        return Occurrences(sample.split, sample.labels, count, longer, tuple(box.side for box in sample.boxes))

    # After a value without a class nothing can be counted by class; the finding stops the import anyhow.
    known = [one for one in samples if all(label < len(reading.class_names) for label in one.labels)]
    return Scan(
        root=tree.root,
        task=task,
        class_names=reading.class_names,
        samples=tuple(sorted(samples, key=lambda sample: sample.path)),
        findings=tuple(sorted(findings, key=lambda one: (one.path, one.line, one.code))),
        statistics=summarise(kind, reading.class_names, (occurrences(sample) for sample in known)),
    )


def _name_values(reading: Reading, examined: list[Examined]) -> Iterator[Finding]:
    """Classes of masks that come without names: background, and one for each other value that occurs."""
    values = sorted({0, *(label for one in examined if one.sample for label in one.sample.mask_labels)})
    if len(values) > _MOST_UNNAMED:
        message = f"the masks have {len(values)} values and no file names the classes: they look like pictures"
        yield error(".", "MASK_VALUE", message)
    reading.class_names = tuple(f"class_{value}" if value else "background" for value in values)
    labels = {value: label for label, value in enumerate(values)}
    moved = [f"{value} is class {label}" for value, label in labels.items() if value != label]
    if not moved:
        return
    for position, one in enumerate(examined):
        if one.sample is not None and one.sample.mask is not None:
            mask = RenumberedMask(one.sample.mask, tuple(values))
            known = tuple(labels[value] for value in one.sample.mask_labels)
            examined[position] = replace(one, sample=replace(one.sample, mask=mask, mask_labels=known))
    message = f"no file names the classes, and some values in between occur nowhere: {', '.join(moved)}"
    yield warning(".", "MASK_RENUMBERED", message)


def _split(
    examined: Sequence[Examined], task: Task, fractions: SplitFractions, seed: int, findings: list[Finding]
) -> list[Sample]:
    samples = [one.sample for one in examined if one.sample is not None]
    prints = [one.print for one in examined if one.print is not None]
    first: dict[str, int] = {}
    exact = [(first.setdefault(sample.sha256, position), position) for position, sample in enumerate(samples)]
    # Of copies only the first is compared; a data set of nothing but alike pictures ends at the limit.
    single = list(first.values())
    near = islice(near_pairs([prints[position] for position in single]), _MOST_PAIRS)
    pairs = [(single[left], single[right]) for left, right in near]
    groups = group(len(samples), iter([*exact, *pairs]))
    if samples and max(Counter(groups).values()) > max(_ALIKE_AT_LEAST, len(samples) * _ALIKE_PART):
        # Frames of one film or drawings of one kind: kept together, nothing would be left to split.
        groups = group(len(samples), iter(exact))
        message = f"{len(pairs)} pairs of pictures are nearly the same; the split cannot keep them together"
        findings.append(warning(".", "MANY_NEAR_DUPLICATES", message))
    members = [
        Member(one, known.picture.split, number, pinned=task is Task.STYLE and one.label == 1)
        for one, known, number in zip(samples, examined, groups, strict=True)
    ]
    splits = assign_splits(members, fractions, seed)
    placed = [replace(sample, split=split) for sample, split in zip(samples, splits, strict=True)]
    findings.extend(_find_copies(placed))
    findings.extend(_find_near(placed, pairs))
    return placed


def _find_copies(samples: Sequence[Sample]) -> Iterator[Finding]:
    by_digest: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_digest[sample.sha256].append(sample)
    for copies in by_digest.values():
        first, *others = sorted(copies, key=lambda sample: sample.path)
        for other in others:
            if other.label != first.label:
                message = f"is the same picture as {first.path}, which has another label"
                yield warning(other.path, "CONFLICTING_LABEL", message, pictures=(other.path, first.path))
            elif other.split is not first.split:
                message = f"is the same picture as {first.path}, which is in {first.split}"
                yield warning(other.path, "SPLIT_LEAK", message, pictures=(other.path, first.path))


def _find_near(samples: Sequence[Sample], pairs: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    told: set[str] = set()
    for left, right in pairs:
        one, other = sorted((samples[left], samples[right]), key=lambda sample: sample.path)
        if one.split is other.split or one.sha256 == other.sha256 or other.path in told:
            continue
        told.add(other.path)
        if len(told) > _LEAKS_TOLD:
            return
        message = f"is nearly the same picture as {one.path}, which is in {one.split}"
        yield warning(other.path, "NEAR_DUPLICATE_LEAK", message, pictures=(other.path, one.path))


def _check_classes(reading: Reading, samples: Sequence[Sample], task: Task) -> Iterator[Finding]:
    if task is Task.STYLE:
        if not any(sample.label == 0 for sample in samples):
            yield error(".", "TOO_FEW_IMAGES", "needs at least one content picture")
        return
    counts = Counter(label for sample in samples for label in set(sample.labels))
    trained = Counter(label for sample in samples if sample.split is Split.TRAIN for label in sample.labels)
    told = {finding.path for finding in reading.findings if finding.code == "EMPTY_CLASS"}
    for label, name in enumerate(reading.class_names):
        path = reading.class_paths.get(name, ".")
        if path not in told:
            yield from _check_class(name, path, counts[label], trained[label], task)
    if task is Task.CLASSIFICATION and len(reading.class_names) < 2:
        yield error(".", "TOO_FEW_CLASSES", f"needs at least two classes, has {len(reading.class_names)}")
    elif not reading.class_names:
        yield error(".", "TOO_FEW_CLASSES", "needs at least one class, has none")
    if task is not Task.CLASSIFICATION:
        if not any(counts.values()):
            yield error(".", "NO_ANNOTATIONS", "no picture has an annotation")
        if len(samples) < 2:
            yield error(".", "TOO_FEW_IMAGES", f"needs at least two readable images, has {len(samples)}")
    yield from _check_balance(reading.class_names, trained, task)


def _check_class(name: str, path: str, images: int, trained: int, task: Task) -> Iterator[Finding]:
    # A list of classes may be longer than what is used of it; a class folder is there for its pictures.
    severity = Severity.ERROR if task is Task.CLASSIFICATION else Severity.WARNING
    if not images and task is not Task.CLASSIFICATION:
        yield warning(path, "EMPTY_CLASS", f"no picture has the class {name!r}")
    elif task is Task.CLASSIFICATION and images < 2:
        message = f"class {name!r} needs at least two readable images, has {images}"
        yield error(path, "TOO_FEW_IMAGES", message)
    elif not trained:
        message = f"class {name!r} has images to evaluate but none to train on"
        yield Finding(path, severity, "CLASS_NOT_IN_TRAIN", message)


def _check_balance(names: Sequence[str], trained: Counter[int], task: Task) -> Iterator[Finding]:
    if task is Task.SEGMENTATION:
        # Counted in pictures: a class that is in every one and a class in every tenth are usual.
        return
    counted = [(count, label) for label, count in trained.items() if count]
    if len(counted) < 2:
        return
    (least, rare), (most, common) = min(counted), max(counted)
    if most >= _IMBALANCE * least:
        message = f"class {names[common]!r} is trained on {most} times and {names[rare]!r} {least} times"
        yield warning(".", "CLASS_IMBALANCE", message)
