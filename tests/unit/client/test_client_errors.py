import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2 as details

import enxerto.client
from enxerto.client import Client, EnxertoError, InvalidArgumentError, NotFoundError, UnavailableError, Violation
from enxerto.client._errors import TABLE
from enxerto.registry.v1 import model_pb2
from fakes.scripted_services import ScriptedServices, refuse


def test_every_status_code_but_ok_has_a_row() -> None:
    assert set(TABLE) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_the_public_face_is_flat_and_its_modules_are_private() -> None:
    assert sorted(enxerto.client.__all__) == enxerto.client.__all__
    public = {name for name, value in vars(enxerto.client).items() if not name.startswith("_")}
    assert public == set(enxerto.client.__all__)


def test_an_error_keeps_everything_that_the_service_said(client: Client, services: ScriptedServices) -> None:
    bad = details.BadRequest()
    bad.field_violations.add(field="model_id", description="must be short")
    bad.field_violations.add(field="model.task", description="is required")
    info = details.ErrorInfo(reason="BAD_NAME", domain="enxerto", metadata={"limit": "63"})
    services.on("GetModel", lambda _request, context: refuse(context, "INVALID_ARGUMENT", "two bad fields", info, bad))
    with pytest.raises(InvalidArgumentError) as caught:
        client.model("flowers")
    error = caught.value
    assert (error.code, error.reason, error.message) == ("INVALID_ARGUMENT", "BAD_NAME", "two bad fields")
    assert error.violations == (Violation("model_id", "must be short"), Violation("model.task", "is required"))
    assert error.metadata == {"limit": "63"}
    assert error.request_id == services.calls[0][2]["x-request-id"]


def test_a_status_without_details_keeps_code_and_text(client: Client, services: ScriptedServices) -> None:
    services.on("GetModel", lambda _request, context: context.abort(grpc.StatusCode.NOT_FOUND, "nothing here"))
    with pytest.raises(NotFoundError, match="nothing here") as caught:
        client.model("flowers")
    assert caught.value.reason == "NOT_FOUND"


def test_unavailable_is_tried_again_when_the_service_asked_for_it(client: Client, services: ScriptedServices) -> None:
    retry = details.RetryInfo(retry_delay=Duration(nanos=10_000_000))

    def second_time(_request: object, context: grpc.ServicerContext) -> model_pb2.Model:
        if len(services.calls) == 1:
            refuse(context, "UNAVAILABLE", "the database is away", retry)
        return model_pb2.Model(name="projects/default/models/flowers")

    services.on("GetModel", second_time)
    assert client.model("flowers").name == "projects/default/models/flowers"
    assert len({metadata["x-request-id"] for _method, _request, metadata in services.calls}) == 1


def test_the_last_unavailable_is_raised_with_its_delay(client: Client, services: ScriptedServices) -> None:
    retry = details.RetryInfo(retry_delay=Duration(seconds=60))
    services.on("GetModel", lambda _request, context: refuse(context, "UNAVAILABLE", "away", retry))
    with pytest.raises(UnavailableError) as caught:
        client.model("flowers")
    assert caught.value.retry_delay_s == 60
    assert len(services.calls) == 1, "a delay beyond the deadline is not waited for"


def test_other_errors_are_not_tried_again(client: Client, services: ScriptedServices) -> None:
    services.on("GetModel", lambda _request, context: refuse(context, "ABORTED", "etag"))
    with pytest.raises(EnxertoError):
        client.model("flowers")
    assert len(services.calls) == 1


def test_without_a_platform_the_error_says_how_to_start_one(tmp_path: object) -> None:
    with Client(home=str(tmp_path)) as nowhere, pytest.raises(UnavailableError, match="enxerto up"):
        nowhere.model("flowers")
