"""Answers of every task."""

from pathlib import Path
from typing import Any

import pytest

from enxerto.client import Box, Client, FailedPreconditionError, InvalidArgumentError, Task
from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from enxerto.training.v1 import dataset_pb2, dataset_service_pb2
from fakes.scripted_services import ScriptedServices, refuse

VERSION = "projects/default/models/m/versions/1"


def test_objects_keep_their_pictures(client: Client, services: ScriptedServices) -> None:
    def answer(request: Any, _context: object) -> vision_service_pb2.DetectResponse:
        response = vision_service_pb2.DetectResponse(model_version=VERSION)
        for image in request.images:
            box = vision_pb2.Box(x_min=1, y_min=2, x_max=3, y_max=4)
            response.results.add().objects.add(label=image.content.decode(), index=2, score=0.5, box=box)
        response.timings.encode.FromMilliseconds(5)
        return response

    services.on("Detect", answer)
    found = client.detect("cars", [str(number).encode() for number in range(70)], score_threshold=0.0, max_objects=3)
    assert [one.objects[0].label for one in found] == [str(number) for number in range(70)]
    assert (found[0].objects[0].box, found[0].objects[0].score) == (Box(1, 2, 3, 4), 0.5)
    assert (found[0].model_version, found[0].timings.encode_s) == (VERSION, 0.005)
    first, second = services.requests("Detect")
    assert (len(first.images), len(second.images)) == (64, 6)
    assert second.HasField("score_threshold")
    assert second.max_objects == 3
    client.detect("cars", [b"x"])
    assert not services.requests("Detect")[-1].HasField("score_threshold")


def test_embeddings_keep_their_pictures(client: Client, services: ScriptedServices) -> None:
    def answer(request: Any, _context: object) -> vision_service_pb2.EmbedResponse:
        response = vision_service_pb2.EmbedResponse(model_version=VERSION, dimension=2)
        for image in request.images:
            response.results.add(values=[int(image.content), 0.5])
        return response

    services.on("Embed", answer)
    found = client.embed("cars", [str(number).encode() for number in range(70)])
    assert [one.values for one in found] == [(number, 0.5) for number in range(70)]
    assert found[0].model_version == VERSION


def test_masks_come_in_the_form_that_was_asked_for(client: Client, services: ScriptedServices) -> None:
    response = vision_service_pb2.SegmentResponse(model_version=VERSION)
    result = response.results.add(width=4, height=3, png=b"png", confidence=0.5)
    segment = result.segments.add(label="road", index=1, pixel_count=5, rle="abc")
    segment.polygons.add(points=[0, 0, 2, 0, 2, 2], hole=True)
    services.on("Segment", response)
    (mask,) = client.segment("roads", [b"x"], mask_format="polygons")
    assert services.requests("Segment")[0].format == vision_pb2.MASK_FORMAT_POLYGONS
    assert (mask.width, mask.height, mask.png, mask.segments[0].label) == (4, 3, b"png", "road")
    assert mask.segments[0].polygons[0].points == ((0, 0), (2, 0), (2, 2))
    assert mask.segments[0].polygons[0].hole
    with pytest.raises(ValueError, match="PNG, RLE, POLYGONS"):
        client.segment("roads", [b"x"], mask_format="jpeg")


def test_paintings_are_asked_for_one_by_one_and_saved(
    client: Client, services: ScriptedServices, tmp_path: Path
) -> None:
    def answer(request: Any, _context: object) -> vision_service_pb2.StylizeResponse:
        response = vision_service_pb2.StylizeResponse(model_version=VERSION)
        for image in request.images:
            response.results.add(content=image.content * 2, media_type="image/png", width=1, height=1)
        return response

    services.on("Stylize", answer)
    first, second = client.stylize("mosaic", [b"a", b"b"])
    assert len(services.requests("Stylize")) == 2
    assert second.save(tmp_path / "b.png").read_bytes() == b"bb"
    assert first.media_type == "image/png"


def test_a_bad_picture_is_the_callers_file(client: Client, services: ScriptedServices, tmp_path: Path) -> None:
    from google.rpc import error_details_pb2

    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="images[0].content", description="TRUNCATED_IMAGE")
    services.on("Detect", lambda _request, context: refuse(context, "INVALID_ARGUMENT", "bad", bad))
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no")
    with pytest.raises(InvalidArgumentError) as caught:
        client.detect("cars", [path])
    assert caught.value.violations[0].field == f"images[0].content ({path})"


def script_dataset(services: ScriptedServices, task: int) -> None:
    services.on("CreateDataset", lambda _request, context: refuse(context, "ALREADY_EXISTS", "there"))
    services.on("GetDataset", dataset_pb2.Dataset(name="projects/default/datasets/cars", task=task))


def test_validation_tells_progress_and_what_it_found(client: Client, services: ScriptedServices) -> None:
    report = dataset_pb2.ValidationReport(importable=False, finding_count=1, split_counts={"train": 8})
    report.findings.add(
        severity=dataset_pb2.Finding.SEVERITY_ERROR, path="labels/1.txt", line=3, code="BOX_OUTSIDE", message="out"
    )
    report.statistics.format = "YOLO"
    report.statistics.classes.add(class_name="car", split_counts={"train": 5, "val": 2})
    report.statistics.sizes.add(max_side=512, count=8)
    progress = dataset_service_pb2.ValidationProgress(images_done=4, image_count=8)
    answers = [
        dataset_service_pb2.ValidateDatasetResponse(progress=progress),
        dataset_service_pb2.ValidateDatasetResponse(report=report),
    ]
    services.on("GetDataset", lambda _request, context: refuse(context, "NOT_FOUND", "not there"))
    services.on("CreateDataset", dataset_pb2.Dataset())
    services.on("ValidateDataset", lambda _request, _context: iter(answers))
    told: list[tuple[int, int]] = []
    found = client.validate_dataset(
        "cars", "s3://bucket/cars", task="detection", progressed=lambda p: told.append((p.images_done, p.image_count))
    )
    assert told == [(4, 8)]
    assert (found.importable, found.findings[0].line, found.findings[0].path) == (False, 3, "labels/1.txt")
    assert found.statistics is not None
    assert (found.statistics.format, found.statistics.classes[0].total, found.statistics.sizes) == ("YOLO", 7, {512: 8})
    # The name is still free, for whatever task.
    (created,) = services.requests("CreateDataset")
    assert (created.dataset_id, created.dataset.task) == ("validation-detection", 2)
    assert services.requests("ValidateDataset")[0].dataset == "projects/default/datasets/validation-detection"
    assert services.requests("ValidateDataset")[0].source.uri == "s3://bucket/cars"


def test_images_are_looked_at_for_the_dataset_that_is_there(client: Client, services: ScriptedServices) -> None:
    script_dataset(services, 2)
    report = dataset_service_pb2.ValidateDatasetResponse(report=dataset_pb2.ValidationReport(importable=True))
    services.on("ValidateDataset", lambda _request, _context: iter([report]))
    for task in (None, "DETECTION"):
        assert client.validate_dataset("cars", "s3://bucket/cars", task=task).importable
    assert {one.dataset for one in services.requests("ValidateDataset")} == {"projects/default/datasets/cars"}
    assert not services.requests("CreateDataset")
    with pytest.raises(FailedPreconditionError, match="choose another name"):
        client.validate_dataset("cars", "s3://bucket/cars", task="SEGMENTATION")


def test_a_dataset_of_another_task_is_not_filled(client: Client, services: ScriptedServices) -> None:
    script_dataset(services, 1)
    with pytest.raises(FailedPreconditionError, match="is for CLASSIFICATION, not for DETECTION"):
        client.import_dataset("cars", "gs://bucket/cars", task=Task.DETECTION)
    with pytest.raises(ValueError, match="not a task"):
        client.import_dataset("cars", "gs://bucket/cars", task="dancing")
