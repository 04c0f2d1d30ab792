"""What a version's own ONNX file answers in ONNX Runtime, beside what the platform answered.

reference = Reference(folder / "model.onnx")
reference.check_detections(pictures, response.results)
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from PIL import Image

from enxerto.inference.v1 import vision_pb2
from enxerto.vision.contracts import Outputs
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.geometry import Placement
from enxerto.vision.images import load_placed, to_batch
from enxerto.vision.onnx.answers import detection_answer, segmentation_answer, style_answer
from enxerto.vision.onnx.session import LABELS_KEY, PREPROCESS_KEY
from enxerto.vision.specs import PreprocessSpec, Resize

PROBABILITY = 1e-3
BOX_PIXELS = 0.5
MASK_SHARE = 0.999
PAINTED_LEVELS = 2


class Reference:
    """A downloaded graph, run with nothing but ONNX Runtime and the documented preprocessing."""

    def __init__(self, file: Path) -> None:
        self._session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.labels: list[str] = json.loads(metadata[LABELS_KEY])
        self._spec = PreprocessSpec.from_json(json.loads(metadata[PREPROCESS_KEY]))

    def _answers(self, pictures: Sequence[bytes]) -> list[tuple[Outputs, int, Placement]]:
        loaded = [load_placed(picture, self._spec) for picture in pictures]
        placements = [placement for _, placement in loaded]
        if self._spec.resize is Resize.FIT:
            runs = [self._run([image]) for image, _ in loaded]
            return [(outputs, 0, placement) for outputs, placement in zip(runs, placements, strict=True)]
        outputs = self._run([image for image, _ in loaded])
        return [(outputs, row, placement) for row, placement in enumerate(placements)]

    def _run(self, images: Sequence[npt.NDArray[np.uint8]]) -> Outputs:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, {"images": to_batch(images)}), strict=True))

    def check_probabilities(self, pictures: Sequence[bytes], answers: Sequence[vision_pb2.Classification]) -> None:
        """Every class has the graph's probability."""
        for answer, (outputs, row, _) in zip(answers, self._answers(pictures), strict=True):
            expected = outputs["probabilities"][row]
            assert len(answer.categories) == len(expected)
            for category in answer.categories:
                assert category.label == self.labels[category.index]
                assert category.probability == pytest.approx(expected[category.index], abs=PROBABILITY)

    def check_detections(self, pictures: Sequence[bytes], answers: Sequence[vision_pb2.Detection]) -> None:
        """The same objects at the same places; those of equal scores in any order."""
        for answer, (outputs, row, placement) in zip(answers, self._answers(pictures), strict=True):
            expected = detection_answer(outputs, row, placement)
            assert len(answer.objects) == len(expected.classes)
            left = set(range(len(expected.classes)))
            for found in answer.objects:
                box = (found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max)
                same = [
                    one
                    for one in left
                    if expected.classes[one] == found.index
                    and abs(expected.scores[one] - found.score) <= PROBABILITY
                    and np.abs(expected.boxes[one] - box).max() <= BOX_PIXELS
                ]
                assert same, f"the graph does not find {found}"
                left.remove(min(same, key=lambda one: float(np.abs(expected.boxes[one] - box).max())))
                assert found.label == self.labels[found.index]

    def check_masks(self, pictures: Sequence[bytes], answers: Sequence[vision_pb2.Segmentation]) -> None:
        """The same class at nearly every pixel."""
        for answer, (outputs, row, placement) in zip(answers, self._answers(pictures), strict=True):
            expected = segmentation_answer(outputs, row, placement)
            mask = pixels_of(answer.png)
            assert mask.shape == expected.classes.shape
            assert (mask == expected.classes).mean() >= MASK_SHARE
            assert answer.confidence == pytest.approx(expected.confidence, abs=PROBABILITY)

    def check_paintings(self, pictures: Sequence[bytes], answers: Sequence[vision_pb2.StylizedImage]) -> None:
        """The same colours, but for rounding."""
        for answer, (outputs, row, placement) in zip(answers, self._answers(pictures), strict=True):
            difference = np.abs(
                pixels_of(answer.content).astype(int) - style_answer(outputs, row, placement).astype(int)
            )
            assert difference.max() <= PAINTED_LEVELS


def pixels_of(content: bytes) -> npt.NDArray[np.uint8]:
    """The pixels of an encoded picture, as they are stored."""
    return np.asarray(Image.open(io.BytesIO(content)))


def of_many_shapes(samples: Sequence[StoredSample]) -> list[bytes]:
    """PNG pictures of other proportions than the input's: as drawn, tall, and wide and larger."""
    pictures = []
    for sample, (width, height) in zip(samples, ((1, 1), (0.7, 1.3), (1.9, 1.1)), strict=False):
        with Image.open(io.BytesIO(sample.data)) as drawn:
            changed = drawn.resize((round(drawn.width * width), round(drawn.height * height)))
        buffer = io.BytesIO()
        changed.save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    return pictures


def accuracy(samples: Sequence[StoredSample], answers: Sequence[vision_pb2.Classification]) -> float:
    """Share of pictures whose most likely class is the true one."""
    pairs = zip(samples, answers, strict=True)
    return float(np.mean([answer.categories[0].index == sample.annotation.label for sample, answer in pairs]))


def mean_iou(samples: Sequence[StoredSample], answers: Sequence[vision_pb2.Segmentation]) -> float:
    """Mean intersection over union of the classes over all pixels of all pictures, without those to be ignored."""
    true = np.concatenate([pixels_of(sample.annotation.mask or b"").ravel() for sample in samples])
    found = np.concatenate([pixels_of(answer.png).ravel() for answer in answers])
    found, true = found[true != 255], true[true != 255]
    classes = np.unique(true)
    return float(
        np.mean([((found == one) & (true == one)).sum() / ((found == one) | (true == one)).sum() for one in classes])
    )
