"""Looks at every picture and checks what a format says of it."""

from __future__ import annotations

import hashlib
import math
import posixpath
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from enxerto.kernel.cores import usable_cores
from enxerto.vision.datasets.duplicates import Fingerprint, fingerprint
from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.pictures import DrawnBox, Picture
from enxerto.vision.datasets.rasters import IGNORED
from enxerto.vision.datasets.samples import Box
from enxerto.vision.datasets.scans import MaskError, Sample
from enxerto.vision.datasets.tree import FOREIGN_EXTENSIONS, IMAGE_EXTENSIONS
from enxerto.vision.images import EXTENSIONS, ImageError, ImageLimits, decode, sniff
from enxerto.vision.specs import Split

_IN_FLIGHT_PER_THREAD: Final = 4
# Half a pixel is how differently tools count edges, and what rounding adds.
_TOLERANCE_PIXELS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Examined:
    """What one picture turned out to be.

    Attributes:
        picture: as the format describes it.
        sample: None when it cannot be used.
        print: to find its like; None without sample.
        findings: what is wrong.
    """

    picture: Picture
    sample: Sample | None
    print: Fingerprint | None
    findings: tuple[Finding, ...]


def examine(
    root: Path, pictures: Sequence[Picture], limits: ImageLimits, *, optional_files: bool, threads: int | None
) -> Iterator[Examined]:
    """Every picture in order, with a bounded number of them in memory."""
    count = threads or usable_cores()
    running: deque[Future[Examined]] = deque()
    # PIL decodes outside the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(count, thread_name_prefix="scan") as pool:
        try:
            for picture in pictures:
                running.append(pool.submit(_examine, root, picture, limits, optional_files))
                if len(running) >= count * _IN_FLIGHT_PER_THREAD:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _examine(root: Path, picture: Picture, limits: ImageLimits, optional_files: bool) -> Examined:
    path, extension = picture.path, posixpath.splitext(picture.path)[1].lower()

    def refused(finding: Finding) -> Examined:
        return Examined(picture, None, None, (finding,))

    try:
        with (root / path).open("rb") as file:
            data = file.read(limits.size_bytes + 1)
    except OSError as problem:
        return refused(error(path, "UNREADABLE_FILE", f"cannot be read: {problem.strerror}"))
    kind = sniff(data)
    if optional_files and kind is None and extension not in IMAGE_EXTENSIONS | FOREIGN_EXTENSIONS:
        return refused(warning(path, "NOT_AN_IMAGE", "is not an image and is skipped"))
    try:
        image = decode(data, limits)
    except ImageError as problem:
        return refused(error(path, problem.reason, str(problem)))
    findings: list[Finding] = []
    if kind is not None and extension not in EXTENSIONS[kind]:
        findings.append(warning(path, "WRONG_EXTENSION", f"is a {kind} by content", pictures=(path,)))
    width, height = image.size
    _check_size(picture, width, height, findings)
    if not picture.annotated:
        message = "has no annotation and counts as background"
        findings.append(warning(path, "IMAGE_WITHOUT_ANNOTATION", message, pictures=(path,)))
    sample = Sample(
        path,
        picture.split or Split.TRAIN,
        hashlib.sha256(data).hexdigest(),
        width,
        height,
        len(data),
        picture.label,
        _boxes(picture, width, height, findings),
        picture.mask,
        _mask_labels(picture, width, height, findings),
    )
    return Examined(picture, sample, fingerprint(image), tuple(findings))


def _check_size(picture: Picture, width: int, height: int, findings: list[Finding]) -> None:
    if picture.size is None or picture.size == (width, height):
        return
    declared = f"{picture.size[0]} x {picture.size[1]}"
    message = f"{picture.path} is {width} x {height} pixels upright, its annotation says {declared}"
    where = picture.origin or picture.path
    findings.append(warning(where, "SIZE_MISMATCH", message, picture.line, pictures=(picture.path,)))


def _boxes(picture: Picture, width: int, height: int, findings: list[Finding]) -> tuple[Box, ...]:
    kept: dict[Box, None] = {}
    for drawn in picture.boxes:
        box = _checked(drawn, picture, width, height, findings)
        if box is None:
            continue
        if box in kept:
            where = drawn.origin or picture.origin or picture.path
            message = f"a box of {picture.path} occurs more than once; one is kept"
            edges = (box.x_min, box.y_min, box.x_max, box.y_max)
            about = warning(where, "DUPLICATE_ANNOTATION", message, drawn.line, pictures=(picture.path,), box=edges)
            findings.append(about)
        kept[box] = None
    return tuple(kept)


def _checked(drawn: DrawnBox, picture: Picture, width: int, height: int, findings: list[Finding]) -> Box | None:
    where = drawn.origin or picture.origin or picture.path
    scale_x, scale_y = (width, height) if drawn.relative else (1, 1)
    left, right = drawn.x_min * scale_x, drawn.x_max * scale_x
    top, bottom = drawn.y_min * scale_y, drawn.y_max * scale_y
    shown = f"the box {left:g}, {top:g}, {right:g}, {bottom:g} of {picture.path} ({width} x {height} pixels)"

    def found(code: str, message: str, *, fatal: bool = True) -> None:
        make = error if fatal else warning
        edges = (left, top, right, bottom)
        box = edges if all(math.isfinite(edge) for edge in edges) else None
        findings.append(make(where, code, f"{shown} {message}", drawn.line, pictures=(picture.path,), box=box))

    if not all(math.isfinite(edge) for edge in (left, top, right, bottom)):
        found("BOX_NOT_FINITE", "has edges that are not finite")
        return None
    if right < left or bottom < top:
        found("BOX_INVERTED", "ends before it begins")
        return None
    if right == left or bottom == top:
        # COCO's own training set has two: one stray click must not keep a million annotations out.
        found("BOX_WITHOUT_AREA", "has no area and is left out", fatal=False)
        return None
    inner = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    if inner[2] <= inner[0] or inner[3] <= inner[1]:
        found("BOX_OUTSIDE", "lies wholly outside of the picture")
        return None
    if max(inner[0] - left, inner[1] - top, right - inner[2], bottom - inner[3]) > _TOLERANCE_PIXELS:
        found("BOX_CLIPPED", "lies partly outside of the picture and is clipped", fatal=False)
    return Box(drawn.label, *inner, crowd=drawn.crowd)


def _mask_labels(picture: Picture, width: int, height: int, findings: list[Finding]) -> tuple[int, ...]:
    if picture.mask is None:
        return ()
    try:
        mask = picture.mask.render(width, height)
    except MaskError as problem:
        message = f"{problem} (of {picture.path})"
        findings.append(error(picture.mask.path, problem.code, message, problem.line, pictures=(picture.path,)))
        return ()
    counts = np.bincount(mask.ravel(), minlength=IGNORED + 1)
    labels = tuple(int(value) for value in np.flatnonzero(counts) if value != IGNORED)
    if not labels:
        findings.append(
            warning(
                picture.mask.path, "EMPTY_MASK", f"has no class at all (of {picture.path})", pictures=(picture.path,)
            )
        )
    return labels
