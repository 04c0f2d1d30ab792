from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.datasets.findings import Finding, error, warning
from enxerto.vision.datasets.statistics import SizeBin
from enxerto.vision.report import (
    BoxedPicture,
    Figure,
    FoundPicture,
    LabelledPicture,
    MaskedPicture,
    PrCurve,
    Report,
    Table,
    Triptych,
    boxes_figure,
    calibration_figure,
    choose_findings,
    choose_pictures,
    class_histogram_figure,
    confusion_figure,
    curves_figure,
    findings_figure,
    findings_table,
    labels_figure,
    masks_figure,
    pr_curves_figure,
    sizes_figure,
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


def _found(count: int) -> Figure:
    single = FoundPicture(1, "BOX_CLIPPED", ("<script>.png",), (_picture(),), (-400.0, 3.0, 9.0, 9.0))
    line = FoundPicture(2, "BOX_WITHOUT_AREA", ("train/$a$.png",), (_picture(),), (5.0, 3.0, 5.0, 9.0))
    pair = FoundPicture(3, "SPLIT_LEAK", ("a/" * 40, "b.png"), (_picture(30, 50), _picture(90, 20)))
    return findings_figure([single, line, pair][:count])


FIGURES |= {
    "findings": lambda: _found(3),
    "one finding": lambda: _found(1),
    "sizes": lambda: sizes_figure([SizeBin(64, 3), SizeBin(1024, 5)], [SizeBin(8, 9)]),
    "sizes without boxes": lambda: sizes_figure([SizeBin(1 << place, 1) for place in range(6, 31)]),
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


def test_rare_findings_are_told_beside_many_of_another_kind() -> None:
    many = [warning(f"{number}.png", "SPLIT_LEAK", "is in two splits") for number in range(50)]
    rare = [warning("z.png", "EMPTY_MASK", "is empty"), error("y.png", "BOX_OUTSIDE", "lies outside")]
    told = choose_findings([*many, *rare], 4)
    assert [one.code for one in told] == ["BOX_OUTSIDE", "EMPTY_MASK", "SPLIT_LEAK", "SPLIT_LEAK"]
    assert choose_findings([]) == ()
    table = findings_table(told, 52)
    assert table.title.startswith("4 of 52 ")
    assert table.rows[0] == ("1", "error", "y.png", "lies outside", "BOX_OUTSIDE")


def test_what_users_name_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    found: list[Finding] = [warning(evil, "SPLIT_LEAK", f"is the same picture as {evil}", 7)]
    counts = class_histogram_figure({"TRAIN": [1]}, [evil])
    figure = Figure("named", evil, counts.png)
    report = Report(
        title=evil,
        headline={evil: evil},
        warnings=(evil,),
        figures=(figure,),
        tables=(Table(evil, (evil,), ((evil,),)),),
        data_figures=(counts,),
        data_tables=(findings_table(found, 1),),
        provenance={evil: evil},
        environment={evil: evil},
    )
    text = write_report(report, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") >= 14
    assert (tmp_path / "classes.png").is_file()
