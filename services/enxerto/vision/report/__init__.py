"""A run's report: one HTML file that needs nothing else, and its drawings as PNGs. Free of torch."""

from enxerto.vision.report.content import Figure, Report, Table
from enxerto.vision.report.findings import FoundPicture, choose_findings, findings_figure, findings_table
from enxerto.vision.report.page import write_report
from enxerto.vision.report.pictures import (
    BoxedPicture,
    LabelledPicture,
    MaskedPicture,
    Triptych,
    boxes_figure,
    choose_pictures,
    labels_figure,
    masks_figure,
    styles_figure,
)
from enxerto.vision.report.plots import (
    Epoch,
    PrCurve,
    calibration_figure,
    class_histogram_figure,
    confusion_figure,
    curves_figure,
    pr_curves_figure,
    sizes_figure,
)

__all__ = [
    "BoxedPicture",
    "Epoch",
    "Figure",
    "FoundPicture",
    "LabelledPicture",
    "MaskedPicture",
    "PrCurve",
    "Report",
    "Table",
    "Triptych",
    "boxes_figure",
    "calibration_figure",
    "choose_findings",
    "choose_pictures",
    "class_histogram_figure",
    "confusion_figure",
    "curves_figure",
    "findings_figure",
    "findings_table",
    "labels_figure",
    "masks_figure",
    "pr_curves_figure",
    "sizes_figure",
    "styles_figure",
    "write_report",
]
