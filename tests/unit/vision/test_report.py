from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.vision.metrics import classification_metrics
from enxerto.vision.report import EpochPoint, PredictedImage, Report, choose_pictures, write_report


def _report(classes: int, epochs: int, pictures: int) -> Report:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 50)
    predictions = np.where(rng.random(50) < 0.8, labels, 0)
    picture = PredictedImage(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), 0, 1, 0.9)
    return Report(
        title="Flowers <&>",
        class_names=tuple(f"a rather long $class$ <name> {index}" for index in range(classes)),
        history=tuple(EpochPoint("LINEAR_PROBE", 1 / n, 1 / n, 1 - 1 / n, 1e-3) for n in range(1, epochs + 1)),
        best=epochs - 1,
        metrics=classification_metrics(labels, predictions, classes),
        split="TEST",
        pictures=(picture,) * pictures,
        provenance={"weights": "<sha256>"},
    )


@pytest.mark.parametrize(("classes", "epochs", "pictures"), [(2, 1, 1), (10, 30, 18), (60, 3, 0)])
def test_the_page_needs_nothing_else(tmp_path: Path, classes: int, epochs: int, pictures: int) -> None:
    page = write_report(_report(classes, epochs, pictures), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 3
    assert "http" not in text
    assert "Flowers &lt;&amp;&gt;" in text
    assert "<name>" not in text
    for name in ("curves", "confusion", "predictions"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width > 400


def test_the_worst_mistakes_come_first_and_every_class_is_shown() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]], dtype=np.float32)
    labels = np.array([0, 0, 0, 1, 0])
    assert choose_pictures(probabilities, labels, 5) == (1, 2, 0, 3, 4)
    assert choose_pictures(probabilities, labels, 3) == (1, 0, 3)
