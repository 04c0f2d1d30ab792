"""A run's report: what the recipe drew of the held-out split, and what is the same for every task."""

from collections.abc import Mapping
from typing import Final

from enxerto.training.worker.order import JobSpec
from enxerto.vision.report import Figure, Report, class_histogram_figure, curves_figure
from enxerto.vision.snapshots import Manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.recipe import Evaluation, Trained

_COUNTED: Final = {
    Task.CLASSIFICATION: "images",
    Task.DETECTION: "objects",
    Task.SEGMENTATION: "pictures that hold the class",
    Task.STYLE: "pictures",
}


def draw_report(
    spec: JobSpec,
    manifest: Manifest,
    trained: Trained,
    evaluation: Evaluation,
    *,
    provenance: Mapping[str, str],
    environment: Mapping[str, str],
) -> Report:
    """The whole report of a run; the recipe's figures keep their names, and its own take the place of ours."""
    own = {figure.name for figure in evaluation.figures}
    general = [figure for figure in _general(manifest, trained, evaluation) if figure.name not in own]
    before = [figure for figure in general if figure.name == "curves"]
    after = [figure for figure in general if figure.name != "curves"]
    return Report(
        title=spec.name,
        headline={**evaluation.headline, "stopped by": trained.stop_reason.lower().replace("_", " ")},
        warnings=spec.warnings,
        figures=(*before, *evaluation.figures, *after),
        tables=evaluation.tables,
        provenance={**provenance, **trained.notes},
        environment=environment,
    )


def _general(manifest: Manifest, trained: Trained, evaluation: Evaluation) -> list[Figure]:
    figures = []
    if trained.history:
        figures.append(curves_figure(trained.history, best=trained.best, score_title=evaluation.score_name))
    if manifest.statistics.classes:
        classes = manifest.statistics.classes
        counts = {split.value: [one.count(split) for one in classes] for split in Split}
        used = {split: values for split, values in counts.items() if any(values)}
        names = [one.class_name for one in classes]
        figures.append(class_histogram_figure(used, names, unit=_COUNTED[manifest.task]))
    return figures
