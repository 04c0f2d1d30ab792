"""A run's report: what the recipe drew of the held-out split, and what is the same for every task."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

import numpy as np

from enxerto.training.worker.order import IMPORTED, JobSpec
from enxerto.vision.blobs import BlobSource
from enxerto.vision.datasets.findings import Finding
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.images import ImageError, UInt8Image, decode
from enxerto.vision.report import (
    Figure,
    FoundPicture,
    Report,
    choose_findings,
    class_histogram_figure,
    curves_figure,
    findings_figure,
    findings_table,
    sizes_figure,
)
from enxerto.vision.snapshots import Manifest, find_samples
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.recipe import Evaluation, Trained

_COUNTED: Final = {
    Task.CLASSIFICATION: "images",
    Task.DETECTION: "objects",
    Task.SEGMENTATION: "pictures that hold the class",
    Task.STYLE: "pictures",
}
_MOST_PICTURED: Final = 12
_THUMBNAIL_PIXELS: Final = 256


def draw_report(
    spec: JobSpec,
    manifest: Manifest,
    blobs: BlobSource,
    trained: Trained,
    evaluation: Evaluation,
    *,
    provenance: Mapping[str, str],
    environment: Mapping[str, str],
) -> Report:
    """The whole report of a run; the recipe's figures keep their names, and its own take the place of ours.

    Raises:
        DataLossError: a shard is missing or damaged.
    """
    own = {figure.name for figure in evaluation.figures}
    curves = (
        [curves_figure(trained.history, best=trained.best, score_title=evaluation.score_name)]
        if trained.history
        else []
    )
    told = choose_findings(manifest.findings)
    return Report(
        title=spec.name,
        headline={**evaluation.headline, "stopped by": trained.stop_reason.lower().replace("_", " ")},
        # A manifest of an older import has no findings of its own.
        warnings=_summary(manifest) or spec.warnings,
        figures=(*(figure for figure in curves if figure.name not in own), *evaluation.figures),
        tables=evaluation.tables,
        data_figures=tuple(figure for figure in _data(manifest, told, blobs) if figure.name not in own),
        data_tables=(findings_table(told, manifest.finding_count),) if told else (),
        provenance={**provenance, **trained.notes},
        environment=environment,
    )


def _summary(manifest: Manifest) -> tuple[str, ...]:
    """One line for each kind of finding; the table has them one by one."""
    counted = Counter(one.code for one in manifest.findings)
    examples = {one.code: one for one in reversed(manifest.findings)}
    lines = [
        f"{examples[code].path}: {examples[code].message} [{code}]"
        if count == 1
        else f"{count:,} times {code.lower().replace('_', ' ')}; the first: {examples[code].path}: "
        f"{examples[code].message} [{code}]"
        for code, count in counted.most_common()
    ]
    more = manifest.finding_count - len(manifest.findings)
    return (*lines, f"and {more:,} more") if more > 0 else tuple(lines)


def _data(manifest: Manifest, told: tuple[Finding, ...], blobs: BlobSource) -> Iterator[Figure]:
    statistics = manifest.statistics
    if statistics.classes:
        counts = {split.value: [one.count(split) for one in statistics.classes] for split in Split}
        used = {split: values for split, values in counts.items() if any(values)}
        names = [one.class_name for one in statistics.classes]
        yield class_histogram_figure(used, names, unit=_COUNTED[manifest.task])
    if statistics.sizes:
        yield sizes_figure(statistics.sizes, statistics.box_sizes)
    pictures = list(islice(_pictures(manifest, told, blobs), _MOST_PICTURED))
    if pictures:
        yield findings_figure(pictures)


def _pictures(manifest: Manifest, told: tuple[Finding, ...], blobs: BlobSource) -> Iterator[FoundPicture]:
    """Small copies of what the findings are about, those of rare kinds among them; what cannot be read is left out."""
    chosen = choose_findings([one for one in told if one.pictures], _MOST_PICTURED)
    samples = find_samples(manifest, blobs, {path for one in chosen for path in one.pictures})
    for finding in chosen:
        if any(path not in samples for path in finding.pictures):
            continue
        try:
            copies = [_thumbnail(samples[path]) for path in finding.pictures]
        except ImageError:
            continue
        box = None
        if finding.box is not None:
            scale = copies[0].shape[1] / samples[finding.pictures[0]].width
            left, top, right, bottom = (scale * edge for edge in finding.box)
            box = (left, top, right, bottom)
        yield FoundPicture(1 + told.index(finding), finding.code, finding.pictures, tuple(copies), box)


def _thumbnail(sample: StoredSample) -> UInt8Image:
    image = decode(sample.data, IMPORTED)
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    return np.asarray(image)
