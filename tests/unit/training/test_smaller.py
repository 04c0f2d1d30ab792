"""A quantised detector is held to its mAP, and a quantised network of masks to its mIoU."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from enxerto.training.worker.smaller import make_smaller
from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import FinetuneSpec, QuantizationMode, QuantizationSpec, Strategy
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.quantization import QuantizationLossError
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.detection import DetectionRecipe
from enxerto.vision.torch.export import export
from enxerto.vision.torch.recipe import Job, Recipe, Trained
from enxerto.vision.torch.segmentation import SegmentationRecipe
from fakes.datasets import detection_scenes, segmentation_scenes, snapshot_of
from fakes.dense_jobs import job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("smaller")]

BOUND = 0.05


class DarkDetection(DetectionRecipe):
    """Calibrates on black pictures: scales that cut off what real ones have."""

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        return np.zeros_like(super().calibration_images(job, preprocess, count))


class DarkSegmentation(SegmentationRecipe):
    """Likewise."""

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        return np.zeros_like(super().calibration_images(job, preprocess, count))


@dataclass(frozen=True)
class Case:
    """A task, what trains it, at which size, the metric of its own, and a smaller graph that loses little of it."""

    recipe: Recipe
    spoiling: Recipe
    base_model: str
    side: int
    metric: str
    mode: QuantizationMode


CASES = {
    Task.DETECTION: Case(DetectionRecipe(), DarkDetection(), "ssdlite", 320, "map_50_95", QuantizationMode.FP16),
    Task.SEGMENTATION: Case(SegmentationRecipe(), DarkSegmentation(), "unet", 96, "miou", QuantizationMode.STATIC_INT8),
}
SCENES = {Task.DETECTION: detection_scenes, Task.SEGMENTATION: segmentation_scenes}


@dataclass(frozen=True)
class Version:
    """A trained network and its exported file."""

    case: Case
    job: Job
    trained: Trained
    file: bytes


@pytest.fixture(scope="module", params=list(CASES))
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Version:
    task, folder = request.param, tmp_path_factory.mktemp("version")
    case = CASES[task]
    spec = FinetuneSpec.with_defaults(
        case.base_model,
        task=task,
        strategy=Strategy.FEATURE_EXTRACTION,
        image_size=case.side,
        epochs=12,
        batch_size=4,
        quantization=QuantizationSpec(mode=case.mode, max_score_loss=BOUND),
    )
    work = job(spec, get_facts(spec.base_model), snapshot_of(SCENES[task](48, side=case.side), folder), folder)
    trained = case.recipe.train(work)
    assert trained.served is not None
    names, path = trained.class_names, folder / "model.onnx"
    export(trained.served, path, task=task, class_names=names, preprocess=trained.preprocess, provenance={})
    return Version(case, work, trained, path.read_bytes())


@pytest.fixture
def path(version: Version, tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(version.file)
    return file


def test_a_smaller_graph_within_the_bound_takes_the_place_of_the_exported_one(version: Version, path: Path) -> None:
    case, lines = version.case, list[str]()
    work = replace(version.job, on_log=lines.append)
    model, metrics = make_smaller(work, case.recipe, version.trained, OnnxModel(path, threads=1), path)
    assert path.stat().st_size < 0.55 * len(version.file)
    before, after = (one.value for one in metrics)
    assert [(one.name, one.split) for one in metrics] == [
        ("score_before_quantization", "val"),
        ("score_after_quantization", "val"),
    ]
    # A network that finds nothing loses nothing.
    assert before > 0.3
    assert before - after <= BOUND
    for answering, score in ((OnnxModel(version.file, threads=1), before), (model, after)):
        measured = case.recipe.evaluate(answering.run, work, Split.VAL, version.trained)
        assert (measured.score_name, measured.score) == (case.metric, pytest.approx(score, abs=1e-6))
    (line,) = lines
    assert line.startswith(f"{case.mode}: {len(version.file):,} to {path.stat().st_size:,} bytes, {case.metric} ")


def test_a_smaller_graph_beyond_the_bound_is_refused(version: Version, path: Path) -> None:
    case, model = version.case, OnnxModel(path, threads=1)
    harsh = QuantizationSpec(mode=QuantizationMode.STATIC_INT8, max_score_loss=BOUND)
    work = replace(version.job, spec=replace(version.job.spec, quantization=harsh))
    with pytest.raises(QuantizationLossError, match=rf"STATIC_INT8 lowers {case.metric} from 0\.\d+ to .* 0\.05 that"):
        make_smaller(work, case.spoiling, version.trained, model, path)
    assert path.read_bytes() == version.file
