from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from enxerto.client import Client, InvalidArgumentError, Violation
from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from fakes.scripted_services import ScriptedServices, refuse


def answer(request: Any, _context: object) -> vision_service_pb2.ClassifyResponse:
    """Each image's class is its text."""
    results = [
        vision_pb2.Classification(categories=[vision_pb2.Category(label=image.content.decode(), probability=0.5)])
        for image in request.images
    ]
    return vision_service_pb2.ClassifyResponse(results=results, model_version="projects/default/models/m/versions/1")


def test_many_images_keep_their_order_over_requests(client: Client, services: ScriptedServices) -> None:
    services.on("Classify", answer)
    predictions = client.classify("flowers", [str(number).encode() for number in range(130)])
    assert [prediction.label for prediction in predictions] == [str(number) for number in range(130)]
    assert [len(request.images) for request in services.requests("Classify")] == [64, 64, 2]
    assert services.requests("Classify")[0].deployment == "projects/default/deployments/flowers"


def test_large_images_are_spread_over_requests(client: Client, services: ScriptedServices) -> None:
    services.on("Classify", lambda request, context: answer(small(request), context))
    client.classify("flowers", [bytes(10 * 2**20)] * 3)
    assert [len(request.images) for request in services.requests("Classify")] == [2, 1]


def small(request: Any) -> vision_service_pb2.ClassifyRequest:
    return vision_service_pb2.ClassifyRequest(images=[vision_pb2.Image(content=b"x") for _image in request.images])


def test_an_error_names_the_callers_file(client: Client, services: ScriptedServices, tmp_path: Path) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="images[1].content", description="is not an image")

    def second_request_fails(request: Any, context: Any) -> vision_service_pb2.ClassifyResponse:
        if len(request.images) == 2:
            refuse(context, "INVALID_ARGUMENT", "bad image", bad)
        return answer(request, context)

    services.on("Classify", second_request_fails)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no")
    with pytest.raises(InvalidArgumentError) as caught:
        client.classify("flowers", [b"1"] * 65 + [path])
    assert caught.value.violations == (Violation(f"images[65].content ({path})", "is not an image"),)


def test_no_images_is_the_services_to_refuse(client: Client, services: ScriptedServices) -> None:
    services.on("Classify", lambda _request, context: refuse(context, "INVALID_ARGUMENT", "images: at least 1"))
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        client.classify("flowers", [])
