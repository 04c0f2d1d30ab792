"""How well a split is classified, through the outputs that are served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from enxerto.vision.contracts import output_names
from enxerto.vision.images import load, to_batch
from enxerto.vision.metrics import (
    Calibration,
    ClassificationMetrics,
    calibration,
    classification_metrics,
    top_k_accuracy,
)
from enxerto.vision.report import (
    Figure,
    LabelledPicture,
    Table,
    calibration_figure,
    choose_pictures,
    confusion_figure,
    curves_figure,
    labels_figure,
)
from enxerto.vision.snapshots import read_samples
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.classification.preparation import source_of
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.recipe import Evaluation, Job, MeasuredMetric, Predict, Trained

SCORE_NAME: Final = "accuracy"
_BATCH: Final = 32
_TOP: Final = 5
_WORST_PAIRS: Final = 10

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def evaluate(predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
    """Measure a whole split; see `Recipe.evaluate`."""
    probabilities, labels = _answers(predict, job, split, trained)
    names = trained.class_names
    measured = classification_metrics(labels, probabilities.argmax(axis=1), len(names))
    calibrated = calibration(labels, probabilities)
    top_5 = top_k_accuracy(labels, probabilities, _TOP) if len(names) > _TOP else None
    pictures = _pictures(probabilities, labels, job, split, trained)
    detail = {
        **measured.to_json(),
        "class_names": list(names),
        "ece": calibrated.error,
        "nll": calibrated.log_loss,
        **({} if top_5 is None else {"top_5_accuracy": top_5}),
    }
    headline = {
        "accuracy": f"{100 * measured.accuracy:.1f} %",
        **({} if top_5 is None else {"top-5 accuracy": f"{100 * top_5:.1f} %"}),
        "F1 (mean of the classes)": f"{100 * measured.f1:.1f} %",
        "calibration error": f"{100 * calibrated.error:.1f} %",
        f"{split.value.lower()} images": str(measured.samples),
    }
    return Evaluation(
        score=measured.accuracy,
        score_name=SCORE_NAME,
        metrics=tuple(_metrics(measured, calibrated, top_5, names)),
        detail=detail,
        headline=headline,
        figures=_figures(measured, probabilities, labels, pictures=pictures, trained=trained),
        tables=_tables(measured, names),
    )


def _answers(predict: Predict, job: Job, split: Split, trained: Trained) -> tuple[Probabilities, Labels]:
    (name,) = output_names(Task.CLASSIFICATION)
    # One worker measures all of the split.
    source = source_of(job, Distribution())
    probabilities, labels = [], []
    for pixels, part in source.stream(split, trained.preprocess, _BATCH):
        probabilities.append(np.asarray(predict(to_batch(list(pixels)))[name], np.float32))
        labels.append(part)
        job.on_phase("evaluating", sum(map(len, labels)), job.manifest.count(split))
    return np.concatenate(probabilities), np.concatenate(labels)


def _metrics(
    measured: ClassificationMetrics, calibrated: Calibration, top_5: float | None, names: tuple[str, ...]
) -> Iterator[MeasuredMetric]:
    yield MeasuredMetric(SCORE_NAME, measured.accuracy)
    if top_5 is not None:
        yield MeasuredMetric("top_5_accuracy", top_5)
    for name in ("precision", "recall", "f1"):
        yield MeasuredMetric(f"{name}_macro", getattr(measured, name))
    for name in ("precision", "recall", "f1"):
        # Every image has one label and one answer, so that all micro averages are the accuracy.
        yield MeasuredMetric(f"{name}_micro", measured.accuracy)
    yield MeasuredMetric("ece", calibrated.error)
    yield MeasuredMetric("nll", calibrated.log_loss)
    for class_name, one in zip(names, measured.per_class, strict=True):
        yield MeasuredMetric("precision", one.precision, class_name)
        yield MeasuredMetric("recall", one.recall, class_name)
        yield MeasuredMetric("f1", one.f1, class_name)


def _figures(
    measured: ClassificationMetrics,
    probabilities: Probabilities,
    labels: Labels,
    *,
    pictures: Sequence[LabelledPicture],
    trained: Trained,
) -> tuple[Figure, ...]:
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return (
        curves_figure(trained.history, best=trained.best, score_title="Accuracy"),
        confusion_figure(measured.confusion, trained.class_names),
        calibration_figure(confidence, predicted == labels),
        labels_figure(pictures, trained.class_names),
    )


def _pictures(
    probabilities: Probabilities, labels: Labels, job: Job, split: Split, trained: Trained
) -> Sequence[LabelledPicture]:
    """What is worth showing, each read again: nobody holds the whole split."""
    rows = choose_pictures(probabilities, labels)
    wanted = set(rows)
    samples = enumerate(read_samples(job.manifest, job.blobs, split))
    images = {row: load(one.data, trained.preprocess, job.limits) for row, one in samples if row in wanted}
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return [LabelledPicture(images[row], int(labels[row]), int(predicted[row]), float(confidence[row])) for row in rows]


def _tables(measured: ClassificationMetrics, names: tuple[str, ...]) -> tuple[Table, ...]:
    classes = Table(
        "By class",
        ("class", "precision %", "recall %", "F1 %", "images"),
        tuple(
            (name, f"{100 * one.precision:.1f}", f"{100 * one.recall:.1f}", f"{100 * one.f1:.1f}", str(one.support))
            for name, one in zip(names, measured.per_class, strict=True)
        ),
    )
    confusion = np.asarray(measured.confusion)
    mistakes = [
        (int(confusion[truth, answer]), names[truth], names[answer])
        for truth, answer in zip(*np.nonzero(confusion), strict=True)
        if truth != answer
    ]
    if not mistakes:
        return (classes,)
    mistakes.sort(key=lambda one: (-one[0], one[1], one[2]))
    pairs = tuple((truth, answer, str(count)) for count, truth, answer in mistakes[:_WORST_PAIRS])
    return classes, Table("Most frequent mistakes", ("truth", "answer", "images"), pairs)
