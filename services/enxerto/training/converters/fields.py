"""Fields that several requests and answers have in common."""

import hashlib
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import ProjectName, is_id
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.training.ports import Idempotency
from enxerto.training.v1 import dataset_service_pb2, sweep_service_pb2, training_service_pb2

_MAX_LABELS = 64
_MAX_LABEL_CHARACTERS = 256
_MAX_REQUEST_ID_CHARACTERS = 128


def project_page(
    parent: str, page_size: int, page_token: str, *, numbered: bool = False
) -> tuple[ProjectName, PageRequest]:
    """Read the common fields of a List request below a project; `numbered` as in `page_request`."""
    violations = Violations()
    name = ProjectName.check(parent, "parent", violations)
    page = page_request(page_size, page_token, violations, numbered=numbered)
    violations.raise_if_any()
    assert name is not None
    return name, page


def read_labels(given: Mapping[str, str], field: str, violations: Violations) -> dict[str, str]:
    """Read free key-value pairs."""
    labels = dict(given)
    if len(labels) > _MAX_LABELS:
        violations.add(field, f"must have at most {_MAX_LABELS} entries")
    for key, value in labels.items():
        if not is_id(key) or len(value) > _MAX_LABEL_CHARACTERS:
            violations.add(
                f"{field}[{key[:80]!r}]", f"the key must be an id, the value at most {_MAX_LABEL_CHARACTERS} long"
            )
    return labels


def idempotency(
    request: dataset_service_pb2.CreateDatasetRequest
    | dataset_service_pb2.CreateSnapshotRequest
    | training_service_pb2.CreateTrainingRunRequest
    | sweep_service_pb2.CreateSweepRequest,
    violations: Violations,
) -> Idempotency | None:
    """Read `request_id`; None without one."""
    if len(request.request_id) > _MAX_REQUEST_ID_CHARACTERS or not request.request_id.isprintable():
        violations.add("request_id", f"must be at most {_MAX_REQUEST_ID_CHARACTERS} printable characters")
    if not request.request_id:
        return None
    return Idempotency(request.request_id, _fingerprint(request))


def _fingerprint(request: Message) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def status_to_proto(error: bytes | None) -> Status | None:
    """A stored google.rpc.Status."""
    return None if error is None else Status.FromString(error)


def seconds(given: Duration) -> float:
    """How long a duration is."""
    return given.seconds + given.nanos / 1e9
