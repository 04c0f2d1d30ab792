from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.report import (
    BoxedPicture,
    Figure,
    LabelledPicture,
    MaskedPicture,
    PrCurve,
    Report,
    Table,
    Triptych,
    boxes_figure,
    calibration_figure,
    choose_pictures,
    class_histogram_figure,
    confusion_figure,
    curves_figure,
    labels_figure,
    masks_figure,
    pr_curves_figure,
    styles_figure,
    write_report,
)

RNG = np.random.default_rng(0)
NAMES = [f"a rather long $class$ <name> {index}" for index in range(60)]


@dataclass(frozen=True)
class OneEpoch:
    phase: str
    train_loss: float
    val_loss: float
    score: float
    learning_rate: float


def _picture(height: int = 32, width: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _curves() -> Figure:
    epochs = [OneEpoch("PROBE" if n < 4 else "FINE_TUNE", 1 / n, 1 / n, 1 - 1 / n, 1e-3) for n in range(1, 8)]
    return curves_figure(epochs, best=5, score_title="mAP@[.5:.95]")


def _boxes(count: int) -> Figure:
    box = np.array([[2.0, 3.0, 20.0, 25.0]])
    one = np.array([1])
    picture = BoxedPicture(_picture(40, 60), box, one, box + 1, one, np.array([0.7]))
    empty = BoxedPicture(_picture(), np.empty((0, 4)), np.empty(0), np.empty((0, 4)), np.empty(0), np.empty(0))
    return boxes_figure([picture, empty][:count], NAMES)


def _masks(count: int) -> Figure:
    truth = RNG.integers(0, 3, (32, 48))
    truth[:4] = 255
    return masks_figure([MaskedPicture(_picture(32, 48), truth, RNG.integers(0, 3, (32, 48)), 0.4)] * count, NAMES)


FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": _curves,
    "curves of nothing": lambda: curves_figure([]),
    "confusion": lambda: confusion_figure(RNG.integers(0, 9, (3, 3)), NAMES[:3]),
    "confusion of many": lambda: confusion_figure(RNG.integers(0, 9, (60, 60)), NAMES),
    "calibration": lambda: calibration_figure(RNG.random(200), RNG.random(200) < 0.5),
    "calibration of nothing": lambda: calibration_figure(np.empty(0), np.empty(0, bool)),
    "pr curves": lambda: pr_curves_figure(
        [PrCurve(name, np.linspace(0, 1, 11), np.linspace(1, 0.2, 11), 0.6) for name in NAMES]
    ),
    "pr curves of nothing": lambda: pr_curves_figure([]),
    "classes": lambda: class_histogram_figure({"TRAIN": [5, 6], "VAL": [1, 2]}, NAMES[:2], unit="objects"),
    "many classes": lambda: class_histogram_figure({"TRAIN": [1] * 60}, NAMES),
    "labels": lambda: labels_figure([LabelledPicture(_picture(), 0, n % 2, 0.9) for n in range(8)], NAMES),
    "no labels": lambda: labels_figure([], NAMES),
    "boxes": lambda: _boxes(2),
    "no boxes": lambda: _boxes(0),
    "masks": lambda: _masks(2),
    "no masks": lambda: _masks(0),
    "styles": lambda: styles_figure([Triptych(_picture(30, 40), _picture(20, 20), _picture(24, 32))] * 2),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_readable_picture(name: str) -> None:
    figure = FIGURES[name]()
    with Image.open(BytesIO(figure.png)) as image:
        assert image.format == "PNG"
        assert image.width > 400
        assert image.height > 200


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    figures = (_curves(), confusion_figure([[3, 1], [0, 4]], NAMES[:2]))
    report = Report(
        title="Flowers <&>",
        headline={"accuracy": "91.2 %"},
        warnings=("12 pictures are in two splits",),
        figures=figures,
        tables=(Table("By class", ("class", "recall %"), (("<name>", "91.0"), ("b", "–"))),),
        provenance={"weights": "<sha256>"},
        environment={"torch": "2"},
    )
    page = write_report(report, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    assert "Flowers &lt;&amp;&gt;" in text
    assert "<name>" not in text
    assert "12 pictures are in two splits" in text
    assert "<td class=n>91.0</td>" in text
    assert "<th class=n>class" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "curves.png", "report.html"]


def test_figures_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        Report(title="t", figures=(_curves(), _curves()))


def test_a_table_is_as_wide_as_its_header() -> None:
    with pytest.raises(ValueError, match="By class"):
        Table("By class", ("a", "b"), (("1",),))


def test_the_worst_mistakes_come_first_and_every_class_is_shown() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]], dtype=np.float32)
    labels = np.array([0, 0, 0, 1, 0])
    assert choose_pictures(probabilities, labels, 5) == (1, 2, 0, 3, 4)
    assert choose_pictures(probabilities, labels, 3) == (1, 0, 3)
