"""Detection from snapshot to metrics: it learns, and what is served is what was measured."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.catalogue import get_facts
from enxerto.vision.contracts import MAX_DETECTIONS
from enxerto.vision.finetuning import FinetuneSpec, StopSpec, Strategy, UnfreezingSpec, Weights
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.specs import Resize, Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.detection import DetectionRecipe
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.export import export, torch_network
from enxerto.vision.torch.progress import EpochReport, Phase
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.weights import WeightsSources
from fakes.datasets import detection_scenes, snapshot_of

SIDE = 96


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def job(folder: Path, spec: FinetuneSpec, *, count: int = 16, heard: list[EpochReport] | None = None) -> Job:
    manifest, blobs = snapshot_of(detection_scenes(count), folder)
    return Job(
        spec=spec,
        facts=get_facts(spec.base_model),
        manifest=manifest,
        blobs=blobs,
        sources=WeightsSources(download=False),
        where=Distribution(),
        compute=Compute("cpu", None, 1),
        on_epoch=(lambda _: None) if heard is None else heard.append,
    )


def spec_of(
    name: str,
    *,
    epochs: int,
    weights: Weights = Weights.PRETRAINED,
    strategy: Strategy = Strategy.FINE_TUNE,
    unfreezing: UnfreezingSpec | None = None,
    batch_size: int = 8,
) -> FinetuneSpec:
    return FinetuneSpec.with_defaults(
        name,
        task=Task.DETECTION,
        encoder="efficientnet_lite0",
        weights=weights,
        strategy=strategy,
        image_size=SIDE,
        epochs=epochs,
        batch_size=batch_size,
        stop=StopSpec(),
        unfreezing=unfreezing,
    )


def test_a_run_ends_in_a_graph_that_is_measured_as_torch_is(tmp_path: Path) -> None:
    heard: list[EpochReport] = []
    unfreezing = UnfreezingSpec(stages=2, head_warmup_epochs=1)
    run = job(tmp_path, spec_of("ssdlite", epochs=2, unfreezing=unfreezing), heard=heard)
    recipe = DetectionRecipe()
    trained = recipe.train(run)
    assert [(one.phase, one.epoch) for one in heard] == [
        (Phase.TRAIN, 1),
        (Phase.TRAIN, 2),
        (Phase.FINE_TUNE, 1),
        (Phase.FINE_TUNE, 2),
    ]
    assert set(heard[0].metrics) >= {"map_50_95", "map_50", "map_75"}
    assert heard[0].score == heard[0].metrics["map_50_95"]
    assert trained.preprocess.resize is Resize.LETTERBOX
    assert (trained.preprocess.height, trained.class_names) == (SIDE, ("circle", "square"))
    assert trained.weights_source.startswith("package:")
    assert "thresholds" in trained.notes
    assert trained.served is not None
    file = tmp_path / "model.onnx"
    export(
        trained.served,
        file,
        task=Task.DETECTION,
        class_names=trained.class_names,
        preprocess=trained.preprocess,
        provenance={},
    )
    in_torch = recipe.evaluate(torch_network(trained.served, Task.DETECTION), run, Split.TEST, trained)
    in_onnx = recipe.evaluate(OnnxModel(file, threads=1).run, run, Split.TEST, trained)
    assert in_torch.score_name == in_torch.metrics[0].name == "map_50_95"
    assert in_onnx.score == pytest.approx(in_torch.score, abs=0.01)
    assert recipe.calibration_images(run, trained.preprocess, 3).shape == (3, 3, SIDE, SIDE)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", list(Strategy))
def test_shapes_are_found_after_a_minute(tmp_path: Path, strategy: Strategy) -> None:
    """Chance is below 0.02 at mAP@.5; 0.7 is what 24 pictures and 7 epochs must reach."""
    recipe = DetectionRecipe()
    run = job(tmp_path, spec_of("fasterrcnn", epochs=7, strategy=strategy, batch_size=4), count=48)
    trained = recipe.train(run)
    assert trained.served is not None
    measured = recipe.evaluate(torch_network(trained.served, Task.DETECTION), run, Split.TEST, trained)
    values = {one.name: one.value for one in measured.metrics if not one.class_name}
    assert values["map_50"] > 0.7
    assert values["f1"] > 0.5
    assert {one.class_name for one in measured.metrics} == {"", "circle", "square"}
    assert {one.name for one in measured.figures} == {"precision_recall", "detections"}
    assert len(measured.tables[0].rows) == 2


def test_answers_are_measured_in_the_pixels_of_the_picture(tmp_path: Path) -> None:
    run = job(tmp_path, spec_of("ssdlite", epochs=1, weights=Weights.NONE))
    recipe = DetectionRecipe()
    side = 2 * SIDE

    class Known:
        """The truth of each picture in turn, in an input twice as large."""

        def __init__(self) -> None:
            from enxerto.vision.snapshots import read_samples

            self.samples = read_samples(run.manifest, run.blobs, Split.TEST)

        def __call__(self, images: Float32Images) -> dict[str, np.ndarray]:
            count = len(images)
            boxes, scores = np.zeros((count, MAX_DETECTIONS, 4), np.float32), np.zeros((count, MAX_DETECTIONS), "f4")
            classes = np.full((count, MAX_DETECTIONS), -1, np.int64)
            for row, sample in enumerate(s for s, _ in zip(self.samples, range(count), strict=False)):
                for place, box in enumerate(sample.annotation.boxes):
                    boxes[row, place] = np.array([box.x_min, box.y_min, box.x_max, box.y_max]) * 2
                    scores[row, place], classes[row, place] = 0.9, box.label
            # The first object's class alone is accepted.
            return {"boxes": boxes, "scores": scores, "classes": classes, "accepted": classes == 0}

    from dataclasses import replace

    from enxerto.vision.torch.recipe import Trained

    preprocess = replace(get_facts("ssdlite").preprocess, height=side, width=side)
    trained = Trained(
        network=None,
        served=None,
        preprocess=preprocess,
        class_names=run.manifest.class_names,
        history=(),
        best=-1,
        stop_reason="EPOCHS",
    )
    run = replace(run, compute=Compute("cpu", None, 1))
    measured = recipe.evaluate(Known(), run, Split.TEST, trained)
    values = {(one.name, one.class_name): one.value for one in measured.metrics}
    assert values["map_50_95", ""] == pytest.approx(1)
    assert (values["recall", "circle"], values["recall", "square"]) == (1, 0)
    assert values["precision", ""] == 1


def test_more_stages_than_there_are_is_said_with_their_names(tmp_path: Path) -> None:
    spec = spec_of("ssdlite", epochs=1, weights=Weights.NONE, unfreezing=UnfreezingSpec(stages=40))
    with pytest.raises(InvalidArgumentError, match="block6"):
        DetectionRecipe().train(job(tmp_path, spec))


def test_a_batch_of_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="batch norm"):
        DetectionRecipe().train(job(tmp_path, spec_of("ssdlite", epochs=1, weights=Weights.NONE, batch_size=1)))


def test_the_seed_decides_new_weights(tmp_path: Path) -> None:
    from enxerto.vision.torch.detection.families import build_detector

    spec = spec_of("ssdlite", epochs=1, weights=Weights.NONE)
    sources = WeightsSources(download=False)
    one, same = (build_detector(spec, get_facts("ssdlite"), 2, sources).detector for _ in range(2))
    for mine, theirs in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(mine, theirs)
