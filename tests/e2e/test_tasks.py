"""Every task and family through the front door: import, train, export, register, deploy, answer.

One family of each task protects main; the others are slow.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import numpy as np
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
from enxerto.vision.specs import Split, Task
from fakes.dataset_folders import write_folder
from fakes.datasets import Scenes
from platforms import Platform
from training_stack import eventually

PROJECT = "projects/default"
RUN_S = 280.0
FAST = {
    Task.CLASSIFICATION: "mobilenet-v3-small",
    Task.DETECTION: "ssdlite",
    Task.SEGMENTATION: "unet",
    Task.STYLE: "fast-style",
}


@dataclass(frozen=True)
class Family:
    """One row: a base model, its encoder, and what makes it small."""

    task: Task
    base_model: str
    encoder: str = ""
    weights: int = training_run_pb2.WEIGHTS_NONE
    image_size: int = 64
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.task.lower()}-{self.base_model}"

    @property
    def resource_id(self) -> str:
        return f"e2e-{self.base_model}"


PRETRAINED = training_run_pb2.WEIGHTS_PRETRAINED
LITE0 = "efficientnet-lite0"
FAMILIES = [
    *(
        Family(Task.CLASSIFICATION, name)
        for name in (
            "mobilenet-v3-small", "resnet18", "resnet34", "resnet50", "resnet101", "vgg11", "vgg16-bn", "vgg19",
            "efficientnet-b0", "efficientnet-b7", "efficientnet-v2-s", "efficientnet-v2-m", "mobilenet-v3-large",
            "convnext-tiny", "timm-resnet10t",
        )
    ),
    # Its positions are learned for one size of the input.
    Family(Task.CLASSIFICATION, "vit-b-16", image_size=0),
    *(Family(Task.DETECTION, name, LITE0, PRETRAINED, 96) for name in ("ssdlite", "ssd", "retinanet", "fasterrcnn")),
    *(
        Family(Task.DETECTION, name, image_size=96)
        for name in (
            "fasterrcnn-resnet50-fpn", "retinanet-resnet50-fpn", "ssdlite320-mobilenet-v3-large", "yolov8n", "yolo11n",
            "yolox-nano", "yolov9-t",
        )
    ),
    Family(Task.DETECTION, "ssd300-vgg16", image_size=300),
    *(
        Family(Task.SEGMENTATION, name, LITE0, PRETRAINED)
        for name in ("unet", "deeplabv3plus", "deeplabv3", "fcn", "lraspp")
    ),
    *(
        Family(Task.SEGMENTATION, name)
        for name in ("deeplabv3-resnet50", "fcn-resnet50", "lraspp-mobilenet-v3-large")
    ),
    Family(Task.STYLE, "fast-style", LITE0, PRETRAINED),
    Family(Task.STYLE, "fast-style-vgg16"),
]  # fmt: skip


def _rows() -> list[object]:
    return [
        pytest.param(family, id=family.id, marks=() if FAST[family.task] == family.base_model else pytest.mark.slow)
        for family in FAMILIES
    ]


@dataclass
class Stubs:
    """The services of a platform."""

    datasets: dataset_service_pb2_grpc.DatasetServiceStub
    training: training_service_pb2_grpc.TrainingServiceStub
    registry: registry_service_pb2_grpc.RegistryServiceStub
    deployments: deployment_service_pb2_grpc.DeploymentServiceStub
    vision: vision_service_pb2_grpc.VisionServiceStub


@pytest.fixture(scope="module")
def stubs(platform: Platform) -> Iterator[Stubs]:
    names = ("training", "registry", "inference")
    channels = {name: grpc.insecure_channel(platform.address(name)) for name in names}
    yield Stubs(
        dataset_service_pb2_grpc.DatasetServiceStub(channels["training"]),
        training_service_pb2_grpc.TrainingServiceStub(channels["training"]),
        registry_service_pb2_grpc.RegistryServiceStub(channels["registry"]),
        deployment_service_pb2_grpc.DeploymentServiceStub(channels["inference"]),
        vision_service_pb2_grpc.VisionServiceStub(channels["inference"]),
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


@pytest.mark.timeout(400)
@pytest.mark.parametrize("family", _rows())
def test_a_family_answers_what_it_was_trained_for(stubs: Stubs, imported: dict[Task, Imported], family: Family) -> None:
    data = imported[family.task]
    run = _train(stubs, data.snapshot, family)
    version = stubs.registry.GetModelVersion(
        registry_service_pb2.GetModelVersionRequest(name=run.model_version), timeout=10
    )
    assert version.state == model_version_pb2.ModelVersion.STATE_READY
    assert version.lineage.base_model == f"baseModels/{family.base_model}"
    assert {"model.onnx", "report.html", "metrics.json"} <= {artifact.filename for artifact in version.artifacts}
    deployment = _deploy(stubs, run.model_version, family)
    try:
        _check_answers(stubs, deployment, run.model_version, data.scenes)
    finally:
        stubs.deployments.DeleteDeployment(deployment_service_pb2.DeleteDeploymentRequest(name=deployment), timeout=10)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_gatys_leaves_pictures_instead_of_a_version(stubs: Stubs, imported: dict[Task, Imported]) -> None:
    style = training_run_pb2.StyleOptions(steps=5)
    run = _train(
        stubs, imported[Task.STYLE].snapshot, Family(Task.STYLE, "gatys", LITE0, PRETRAINED, extra={"style": style})
    )
    assert not run.model_version
    pictures = [file for file in run.files if file.media_type == "image/png"]
    assert pictures
    request = training_service_pb2.DownloadRunFileRequest(name=pictures[0].name)
    content = b"".join(part.chunk for part in stubs.training.DownloadRunFile(request, timeout=20))
    assert len(content) == pictures[0].size_bytes
    assert Image.open(io.BytesIO(content)).format == "PNG"


def _train(stubs: Stubs, snapshot: str, family: Family) -> training_run_pb2.TrainingRun:
    spec = training_run_pb2.TrainingSpec(
        snapshot=snapshot,
        base_model=f"baseModels/{family.base_model}",
        encoder=f"baseModels/{family.encoder}" if family.encoder else "",
        weights=family.weights,
        model=f"{PROJECT}/models/{family.resource_id}",
        epochs=1,
        batch_size=4,
        image_size=family.image_size or None,
        **family.extra,
    )
    request = training_service_pb2.CreateTrainingRunRequest(
        parent=PROJECT, training_run=training_run_pb2.TrainingRun(spec=spec)
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
        deployment=deployment_pb2.Deployment(model_version=version),
    )
    name: str = stubs.deployments.CreateDeployment(request, timeout=10).name

    def ready() -> bool | None:
        now = stubs.deployments.GetDeployment(deployment_service_pb2.GetDeploymentRequest(name=name), timeout=10)
        assert now.state != deployment_pb2.Deployment.STATE_FAILED, now.error
        return True if now.state == deployment_pb2.Deployment.STATE_READY else None

    eventually(ready, 120, 0.3)
    return name


def _check_answers(stubs: Stubs, deployment: str, version: str, scenes: Scenes) -> None:
    held_out = [sample for sample in scenes.samples if sample.split is not Split.TRAIN][:3]
    images = [vision_pb2.Image(content=sample.data) for sample in held_out]
    width, height = held_out[0].width, held_out[0].height
    match scenes.task:
        case Task.CLASSIFICATION:
            classified = stubs.vision.Classify(
                vision_service_pb2.ClassifyRequest(deployment=deployment, images=images), timeout=60
            )
            assert classified.model_version == version
            for one in classified.results:
                assert {category.label for category in one.categories} == set(scenes.class_names)
                assert sum(category.probability for category in one.categories) == pytest.approx(1, abs=1e-3)
        case Task.DETECTION:
            detected = stubs.vision.Detect(
                vision_service_pb2.DetectRequest(deployment=deployment, images=images, score_threshold=0), timeout=60
            )
            assert detected.model_version == version
            assert len(detected.results) == len(images)
            for found in detected.results:
                scores = [one.score for one in found.objects]
                assert scores == sorted(scores, reverse=True)
                for one in found.objects:
                    assert one.label in scenes.class_names
                    assert 0 <= one.box.x_min <= one.box.x_max <= width
                    assert 0 <= one.box.y_min <= one.box.y_max <= height
        case Task.SEGMENTATION:
            segmented = stubs.vision.Segment(
                vision_service_pb2.SegmentRequest(deployment=deployment, images=images), timeout=60
            )
            assert segmented.model_version == version
            for mask in segmented.results:
                pixels = np.asarray(Image.open(io.BytesIO(mask.png)))
                assert pixels.shape == (height, width)
                assert pixels.max() < len(scenes.class_names)
                assert sum(segment.pixel_count for segment in mask.segments) == width * height
        case Task.STYLE:
            painted = stubs.vision.Stylize(
                vision_service_pb2.StylizeRequest(deployment=deployment, images=images), timeout=60
            )
            assert painted.model_version == version
            for picture, sample in zip(painted.results, held_out, strict=True):
                result = Image.open(io.BytesIO(picture.content)).convert("RGB")
                assert result.size == (width, height)
                assert np.asarray(result).tobytes() != np.asarray(Image.open(io.BytesIO(sample.data))).tobytes()
