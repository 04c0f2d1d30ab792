"""Texts that no request may hold."""

import pytest

from enxerto.inference.v1.deployment_pb2 import Deployment, TrafficTarget
from enxerto.inference.v1.deployment_service_pb2 import CreateDeploymentRequest
from enxerto.inference.v1.vision_pb2 import Image
from enxerto.kernel.errors import InvalidArgumentError
from enxerto.runtime.texts import check_texts


def test_every_field_with_the_character_zero_is_named() -> None:
    wrong = Deployment(
        labels={"good": "one", "bad\0": "one", "worse": "\0"},
        traffic=[TrafficTarget(model_version="good"), TrafficTarget(model_version="bad\0")],
        replicas=1,
    )
    request = CreateDeploymentRequest(parent="projects/default", deployment=wrong, request_id="\0")
    with pytest.raises(InvalidArgumentError) as refusal:
        check_texts(request)
    fields = {violation.field for violation in refusal.value.violations}
    assert fields == {"deployment.labels", "deployment.traffic[1].model_version", "request_id"}


def test_bytes_may_be_zeros_and_streams_are_not_looked_at() -> None:
    check_texts(Image(content=bytes(10)))
    check_texts(iter(["\0"]))
    check_texts(CreateDeploymentRequest(deployment=Deployment(labels={"team": "vision"}), request_id="ö"))
