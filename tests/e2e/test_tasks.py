"""Every base model of the catalogue through the front door: import, train, export, register, deploy, answer.

What the platform answers is compared with what the version's downloaded graph answers in ONNX Runtime alone. One
family of each other task than classification, whose loop is in test_loop.py, protects main; the others are slow.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from PIL import Image

from enxerto.inference.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    vision_pb2,
    vision_service_pb2,
    vision_service_pb2_grpc,
)
from enxerto.registry.v1 import model_version_pb2, registry_service_pb2, registry_service_pb2_grpc
from enxerto.training.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    training_run_pb2,
    training_service_pb2,
    training_service_pb2_grpc,
)
from enxerto.type.v1 import task_pb2
from enxerto.vision.catalogue import list_facts
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.specs import Split, Task
from fakes.dataset_folders import write_folder
from fakes.datasets import Scenes
from family_rows import FAST, OTHER_ENCODERS, OVERRIDES, Family, resource_name, rows
from platforms import Platform
from served_answers import Reference, accuracy, mean_iou, of_many_shapes, pixels_of
from training_stack import eventually

PROJECT = "projects/default"
# Of a row on two busy cores: the largest networks have 300 million parameters.
RUN_S = 480.0
ROW_S = 700


def _params(families: Sequence[Family]) -> list[object]:
    return [pytest.param(family, id=family.id, marks=() if family.is_fast else pytest.mark.slow) for family in families]


@dataclass
class Stubs:
    """The services of a platform."""

    datasets: dataset_service_pb2_grpc.DatasetServiceStub
    training: training_service_pb2_grpc.TrainingServiceStub
    registry: registry_service_pb2_grpc.RegistryServiceStub
    deployments: deployment_service_pb2_grpc.DeploymentServiceStub
    vision: vision_service_pb2_grpc.VisionServiceStub
    device: deployment_pb2.Deployment.Device
    """Of what is deployed."""


@pytest.fixture(scope="module")
def stubs(platform: Platform, pytestconfig: pytest.Config) -> Iterator[Stubs]:
    names = ("training", "registry", "inference")
    channels = {name: grpc.insecure_channel(platform.address(name)) for name in names}
    yield Stubs(
        dataset_service_pb2_grpc.DatasetServiceStub(channels["training"]),
        training_service_pb2_grpc.TrainingServiceStub(channels["training"]),
        registry_service_pb2_grpc.RegistryServiceStub(channels["registry"]),
        deployment_service_pb2_grpc.DeploymentServiceStub(channels["inference"]),
        vision_service_pb2_grpc.VisionServiceStub(channels["inference"]),
        deployment_pb2.Deployment.Device.Value(f"DEVICE_{pytestconfig.getoption('device').upper()}"),
    )
    for channel in channels.values():
        channel.close()


@dataclass(frozen=True)
class Imported:
    """A snapshot and what was drawn for it."""

    snapshot: str
    scenes: Scenes


@pytest.fixture(scope="module")
def imported(platform: Platform, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Imported]:
    """One drawn data set of each task, uploaded by the client."""
    found = {}
    for task in Task:
        folder = tmp_path_factory.mktemp(task.lower()) / "data"
        scenes = write_folder(task, folder)
        dataset = f"e2e-{task.lower()}"
        request = dataset_service_pb2.CreateDatasetRequest(
            parent=PROJECT,
            dataset_id=dataset,
            dataset=dataset_pb2.Dataset(task=task_pb2.Task.Value(f"TASK_{task}")),
        )
        stubs.datasets.CreateDataset(request, timeout=10)
        snapshot = platform.client.import_dataset(dataset, folder)
        found[task] = Imported(snapshot.name, scenes)
    return found


def test_no_base_model_is_without_a_row() -> None:
    named = {family.facts.name for family in rows()}
    assert {facts.name for facts in list_facts()} <= named
    # What a row's name no longer means would be silently as every other row.
    assert {*FAST.values(), *OVERRIDES, *(name for name, _ in OTHER_ENCODERS)} <= named
    assert {family.task for family in rows() if family.is_fast} == set(Task) - {Task.CLASSIFICATION}


@pytest.mark.timeout(ROW_S)
@pytest.mark.parametrize("family", _params([family for family in rows() if family.makes_version]))
def test_a_family_answers_what_it_was_trained_for(
    platform: Platform, stubs: Stubs, imported: dict[Task, Imported], family: Family, tmp_path: Path
) -> None:
    data = imported[family.task]
    run = _train(stubs, data.snapshot, family)
    version = stubs.registry.GetModelVersion(
        registry_service_pb2.GetModelVersionRequest(name=run.model_version), timeout=10
    )
    assert version.state == model_version_pb2.ModelVersion.STATE_READY
    assert version.lineage.base_model == resource_name(family.facts.name)
    assert {"model.onnx", "report.html", "metrics.json"} <= {artifact.filename for artifact in version.artifacts}
    (file,) = platform.client.download(run.model_version, tmp_path, roles=["MODEL"])
    reference = Reference(file)
    # The largest have gigabytes, and pytest keeps the folders of three runs.
    file.unlink()
    deployment = _deploy(stubs, run.model_version, family)
    try:
        asked = Asked(stubs.vision, deployment, run.model_version)
        CHECKS[family.task](asked, data.scenes, reference, family.run.least_score)
    finally:
        stubs.deployments.DeleteDeployment(deployment_service_pb2.DeleteDeploymentRequest(name=deployment), timeout=10)


@pytest.mark.timeout(ROW_S)
@pytest.mark.parametrize("family", _params([family for family in rows() if not family.makes_version]))
def test_gatys_leaves_pictures_instead_of_a_version(
    stubs: Stubs, imported: dict[Task, Imported], family: Family
) -> None:
    data = imported[Task.STYLE]
    run = _train(stubs, data.snapshot, family)
    assert not run.model_version
    pictures = [file for file in run.files if file.media_type == "image/png"]
    assert pictures
    request = training_service_pb2.DownloadRunFileRequest(name=pictures[0].name)
    content = b"".join(part.chunk for part in stubs.training.DownloadRunFile(request, timeout=20))
    assert len(content) == pictures[0].size_bytes
    painted = Image.open(io.BytesIO(content))
    assert painted.format == "PNG"
    originals = [Image.open(io.BytesIO(sample.data)).convert("RGB") for sample in data.scenes.samples]
    assert painted.convert("RGB").tobytes() not in {original.tobytes() for original in originals}


def _train(stubs: Stubs, snapshot: str, family: Family) -> training_run_pb2.TrainingRun:
    request = training_service_pb2.CreateTrainingRunRequest(
        parent=PROJECT, training_run=training_run_pb2.TrainingRun(spec=family.spec(snapshot, PROJECT))
    )
    run = stubs.training.CreateTrainingRun(request, timeout=10)
    final = {training_run_pb2.TrainingRun.STATE_SUCCEEDED, training_run_pb2.TrainingRun.STATE_FAILED}

    def ended() -> training_run_pb2.TrainingRun | None:
        now = stubs.training.GetTrainingRun(training_service_pb2.GetTrainingRunRequest(name=run.name), timeout=10)
        return now if now.state in final else None

    run = eventually(ended, RUN_S, 0.3)
    assert run.state == training_run_pb2.TrainingRun.STATE_SUCCEEDED, run.error
    return run


def _deploy(stubs: Stubs, version: str, family: Family) -> str:
    request = deployment_service_pb2.CreateDeploymentRequest(
        parent=PROJECT,
        deployment_id=family.resource_id,
        deployment=deployment_pb2.Deployment(model_version=version, device=stubs.device),
    )
    name: str = stubs.deployments.CreateDeployment(request, timeout=10).name

    def ready() -> bool | None:
        now = stubs.deployments.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=name), timeout=10)
        assert now.state != deployment_pb2.Deployment.STATE_FAILED, now.error
        return True if now.state == deployment_pb2.Deployment.STATE_READY else None

    eventually(ready, 120, 0.3)
    return name


@dataclass(frozen=True)
class Asked:
    """A deployment, and the version that it has to answer with."""

    vision: vision_service_pb2_grpc.VisionServiceStub
    deployment: str
    version: str

    def classify(self, pictures: Sequence[bytes]) -> Sequence[vision_pb2.Classification]:
        request = vision_service_pb2.ClassifyRequest(deployment=self.deployment, images=_images(pictures))
        answer = self.vision.Classify(request, timeout=60)
        assert answer.model_version == self.version
        return list(answer.results)

    def detect(self, pictures: Sequence[bytes]) -> Sequence[vision_pb2.Detection]:
        request = vision_service_pb2.DetectRequest(
            deployment=self.deployment, images=_images(pictures), score_threshold=0
        )
        answer = self.vision.Detect(request, timeout=60)
        assert answer.model_version == self.version
        return list(answer.results)

    def segment(self, pictures: Sequence[bytes]) -> Sequence[vision_pb2.Segmentation]:
        request = vision_service_pb2.SegmentRequest(deployment=self.deployment, images=_images(pictures))
        answer = self.vision.Segment(request, timeout=60)
        assert answer.model_version == self.version
        return list(answer.results)

    def stylize(self, pictures: Sequence[bytes]) -> Sequence[vision_pb2.StylizedImage]:
        request = vision_service_pb2.StylizeRequest(deployment=self.deployment, images=_images(pictures))
        answer = self.vision.Stylize(request, timeout=60)
        assert answer.model_version == self.version
        return list(answer.results)


def _images(pictures: Sequence[bytes]) -> list[vision_pb2.Image]:
    return [vision_pb2.Image(content=picture) for picture in pictures]


def _held_out(scenes: Scenes) -> list[StoredSample]:
    return [sample for sample in scenes.samples if sample.split is not Split.TRAIN]


def _check_classes(asked: Asked, scenes: Scenes, reference: Reference, least_score: float | None) -> None:
    pictures = of_many_shapes(_held_out(scenes))
    answers = asked.classify(pictures)
    for one in answers:
        assert {category.label for category in one.categories} == set(scenes.class_names)
        assert sum(category.probability for category in one.categories) == pytest.approx(1, abs=1e-3)
    reference.check_probabilities(pictures, answers)
    if least_score is not None:
        held_out = _held_out(scenes)
        assert accuracy(held_out, asked.classify([sample.data for sample in held_out])) >= least_score


def _check_objects(asked: Asked, scenes: Scenes, reference: Reference, least_score: float | None) -> None:
    assert least_score is None
    pictures = of_many_shapes(_held_out(scenes))
    answers = asked.detect(pictures)
    for picture, found in zip(pictures, answers, strict=True):
        height, width, _ = pixels_of(picture).shape
        scores = [one.score for one in found.objects]
        assert scores == sorted(scores, reverse=True)
        for one in found.objects:
            assert one.label in scenes.class_names
            assert 0 <= one.box.x_min <= one.box.x_max <= width
            assert 0 <= one.box.y_min <= one.box.y_max <= height
    reference.check_detections(pictures, answers)


def _check_masks(asked: Asked, scenes: Scenes, reference: Reference, least_score: float | None) -> None:
    pictures = of_many_shapes(_held_out(scenes))
    answers = asked.segment(pictures)
    for picture, mask in zip(pictures, answers, strict=True):
        pixels = pixels_of(mask.png)
        assert pixels.shape == pixels_of(picture).shape[:2]
        assert pixels.max() < len(scenes.class_names)
        assert sum(segment.pixel_count for segment in mask.segments) == pixels.size
    reference.check_masks(pictures, answers)
    if least_score is not None:
        held_out = _held_out(scenes)
        assert mean_iou(held_out, asked.segment([sample.data for sample in held_out])) >= least_score


def _check_paintings(asked: Asked, scenes: Scenes, reference: Reference, least_score: float | None) -> None:
    assert least_score is None
    pictures = of_many_shapes(_held_out(scenes))
    answers = asked.stylize(pictures)
    for picture, painted in zip(pictures, answers, strict=True):
        original, result = pixels_of(picture), pixels_of(painted.content)
        assert result.shape == original.shape
        assert result.tobytes() != original.tobytes()
    reference.check_paintings(pictures, answers)


CHECKS: dict[Task, Callable[[Asked, Scenes, Reference, float | None], None]] = {
    Task.CLASSIFICATION: _check_classes,
    Task.DETECTION: _check_objects,
    Task.SEGMENTATION: _check_masks,
    Task.STYLE: _check_paintings,
}
