"""Every error that a caller can be told has a code, a reason and the details of its kind."""

import importlib
import inspect
import re
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

import enxerto
from enxerto.kernel import errors
from enxerto.runtime.error_table import TABLE, TRAILER_BUDGET_BYTES, internal_status, to_status


def error_modules() -> list[str]:
    """Modules named `errors`; found by file, because importing whole packages would need every extra."""
    root = Path(enxerto.__path__[0])
    return [".".join(["enxerto", *path.relative_to(root).with_suffix("").parts]) for path in root.rglob("errors.py")]


def all_errors() -> list[type[errors.EnxertoError]]:
    for name in error_modules():
        importlib.import_module(name)
    found, queue = [], [errors.EnxertoError]
    while queue:
        children = queue.pop().__subclasses__()
        found += children
        queue += children
    return [kind for kind in dict.fromkeys(found) if kind.__module__.startswith("enxerto.")]


def test_error_modules_are_found() -> None:
    assert {"enxerto.kernel.errors", "enxerto.registry.errors"} <= set(error_modules())


def test_every_error_has_exactly_one_row() -> None:
    for kind in all_errors():
        rows = [row for row, _, _ in TABLE if issubclass(kind, row)]
        assert len(rows) == 1, f"{kind.__qualname__} has {len(rows)} rows"


def test_every_row_is_an_error_of_the_kernel() -> None:
    direct = errors.EnxertoError.__subclasses__()
    assert {row for row, _, _ in TABLE} == {kind for kind in direct if kind.__module__ == "enxerto.kernel.errors"}


def test_reasons_are_stable_words_and_unique() -> None:
    owners: dict[str, str] = {}
    for kind in all_errors():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{1,62}[A-Z0-9]", kind.reason), kind
        if "reason" in vars(kind):
            service = kind.__module__
            assert owners.setdefault(f"{service} {kind.reason}", kind.__name__) == kind.__name__, kind


def test_errors_are_named_errors() -> None:
    for kind in all_errors():
        assert kind.__name__.endswith("Error")
        assert inspect.getdoc(kind), kind


CASES = [
    (errors.InvalidArgumentError([errors.Violation("f", "d")]), grpc.StatusCode.INVALID_ARGUMENT, ["BadRequest"]),
    (errors.NotFoundError("Model", "m"), grpc.StatusCode.NOT_FOUND, ["ResourceInfo"]),
    (errors.AlreadyExistsError("Model", "m"), grpc.StatusCode.ALREADY_EXISTS, ["ResourceInfo"]),
    (
        errors.FailedPreconditionError("x", [errors.PreconditionViolation("STATE", "s", "d")]),
        grpc.StatusCode.FAILED_PRECONDITION,
        ["PreconditionFailure"],
    ),
    (errors.AbortedError("x"), grpc.StatusCode.ABORTED, []),
    (
        errors.ResourceExhaustedError("x", subject="queue", retry_after_s=2.5),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ["QuotaFailure", "RetryInfo"],
    ),
    (errors.UnavailableError("x"), grpc.StatusCode.UNAVAILABLE, ["RetryInfo"]),
    (errors.UnauthenticatedError("x"), grpc.StatusCode.UNAUTHENTICATED, []),
    (errors.PermissionDeniedError("x"), grpc.StatusCode.PERMISSION_DENIED, []),
    (errors.UnimplementedError("x"), grpc.StatusCode.UNIMPLEMENTED, []),
    (errors.DataLossError("x"), grpc.StatusCode.DATA_LOSS, []),
]


@pytest.mark.parametrize(("error", "code", "details"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_a_row(error: errors.EnxertoError, code: grpc.StatusCode, details: list[str]) -> None:
    status = to_status(error)
    assert status.code == code_pb2.Code.Value(code.name)
    assert status.message == error.message
    assert [detail.TypeName() for detail in status.details] == [
        f"google.rpc.{name}" for name in ["ErrorInfo", *details]
    ]
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.reason, "enxerto")


def test_the_cases_are_the_table() -> None:
    assert [type(error) for error, _, _ in CASES] == [row for row, _, _ in TABLE]


def test_a_retry_delay_keeps_its_fraction() -> None:
    retry = error_details_pb2.RetryInfo()
    to_status(errors.UnavailableError("x", retry_after_s=2.5)).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_a_stored_status_keeps_every_violation_and_a_sent_one_fits_the_trailers() -> None:
    error = errors.InvalidArgumentError([errors.Violation(f"f{i}", "x" * 1000) for i in range(100)])
    stored, sent = error_details_pb2.BadRequest(), error_details_pb2.BadRequest()
    to_status(error).details[1].Unpack(stored)
    to_status(error, TRAILER_BUDGET_BYTES).details[1].Unpack(sent)
    assert len(stored.field_violations) == 100
    assert sent.ByteSize() < 4000
    told = len(sent.field_violations) - 1
    assert sent.field_violations[-1].description == f"and {100 - told} violations from here on"


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgumentError([errors.Violation("f" * 9000, "é" * 9000) for _ in range(3)]),
        errors.NotFoundError("Model", "é" * 9000),
        errors.FailedPreconditionError(
            "x" * 9000, [errors.PreconditionViolation("BLOB", "s" * 90, "d" * 90) for _ in range(500)]
        ),
        errors.ResourceExhaustedError("é" * 9000, subject="s" * 9000),
        errors.PermissionDeniedError("x" * 9000, metadata={"key": "v" * 9000}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_outgrows_the_trailers(error: errors.EnxertoError) -> None:
    # The bytes travel in base64 beside the message, percent-encoded, in at most 8 KiB.
    status = to_status(error, TRAILER_BUDGET_BYTES)
    percent_encoded = sum(3 if byte > 126 or byte < 32 else 1 for byte in status.message.encode())
    assert status.ByteSize() * 4 // 3 + percent_encoded < 8192


def test_an_error_without_a_row_is_a_mistake_of_ours() -> None:
    class OddError(errors.EnxertoError):
        """Belongs to no row."""

    with pytest.raises(TypeError, match="OddError has no row"):
        to_status(OddError("x"))


def test_internal_says_nothing_but_the_request_id() -> None:
    status = internal_status("id-1")
    assert status.message == "internal error; the request id finds it in the log"
    assert [detail.TypeName() for detail in status.details] == ["google.rpc.ErrorInfo", "google.rpc.RequestInfo"]
