"""Requests about models, versions and aliases: wire to domain."""

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import ModelName, ProjectName, VersionName, VersionReference, check_id
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.registry.converters.content import check_labels, version_content
from enxerto.registry.domain import ModelContent, VersionContent
from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.type.v1 import task_pb2
from enxerto.vision.specs import Task

_MAX_DISPLAY_NAME = 200
_MAX_DESCRIPTION = 4000
_MAX_REQUEST_ID = 128
_MAX_NAMES = 1000
_TASKS = {task_pb2.Task.Value(f"TASK_{task.value}"): task for task in Task}


def model_to_create(request: pb.CreateModelRequest) -> tuple[ModelName, ModelContent]:
    """Name and content of a new model."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    model_id = check_id(request.model_id, "model_id", violations)
    _check_request_id(request.request_id, violations)
    if not request.HasField("model"):
        violations.add("model", "is required")
    task = _TASKS.get(request.model.task)
    if task is None:
        violations.add("model.task", f"must be one of {', '.join(task_pb2.Task.Name(known) for known in _TASKS)}")
    _check_text(request.model.display_name, "model.display_name", _MAX_DISPLAY_NAME, violations)
    _check_text(request.model.description, "model.description", _MAX_DESCRIPTION, violations)
    check_labels(request.model.labels, "model.labels", violations)
    violations.raise_if_any()
    assert parent is not None
    assert task is not None
    content = ModelContent(task, request.model.display_name, request.model.description, dict(request.model.labels))
    return ModelName(parent.project, model_id), content


def model_name(request: pb.GetModelRequest) -> ModelName:
    """The model to read."""
    return ModelName.parse(request.name)


def models_to_list(request: pb.ListModelsRequest) -> tuple[ProjectName, PageRequest]:
    """The project and the page."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    assert parent is not None
    return parent, page


def version_to_create(request: pb.CreateModelVersionRequest) -> tuple[ModelName, VersionContent]:
    """The model and the content of its next version."""
    violations = Violations()
    parent = ModelName.check(request.parent, "parent", violations)
    _check_request_id(request.request_id, violations)
    content = version_content(request.model_version, violations)
    violations.raise_if_any()
    assert parent is not None
    assert content is not None
    return parent, content


def version_reference(request: pb.GetModelVersionRequest) -> VersionReference:
    """The version to read."""
    return VersionReference.parse(request.name)


def references_to_resolve(request: pb.ResolveModelVersionsRequest) -> list[VersionReference]:
    """The versions to say the meaning of, each once."""
    violations = Violations()
    if not 0 < len(request.names) <= _MAX_NAMES:
        violations.add("names", f"must be 1 to {_MAX_NAMES} names, are {len(request.names)}")
    violations.raise_if_any()
    found = [VersionReference.check(name, f"names[{n}]", violations) for n, name in enumerate(request.names)]
    violations.raise_if_any()
    return list(dict.fromkeys(reference for reference in found if reference is not None))


def versions_to_list(request: pb.ListModelVersionsRequest) -> tuple[ModelName, PageRequest]:
    """The model and the page."""
    violations = Violations()
    parent = ModelName.check(request.parent, "parent", violations)
    page = page_request(request.page_size, request.page_token, violations, numbered=True)
    violations.raise_if_any()
    assert parent is not None
    return parent, page


def alias_to_set(request: pb.SetAliasRequest) -> tuple[ModelName, VersionName]:
    """The model and the version that the alias shall point to."""
    violations = Violations()
    model = ModelName.check(request.model, "model", violations)
    check_id(request.alias, "alias", violations)
    version = VersionName.check(request.version, "version", violations)
    if model is not None and version is not None and version.parent != model:
        violations.add("version", f"must be a version of {model}")
    violations.raise_if_any()
    assert model is not None
    assert version is not None
    return model, version


def alias_to_delete(request: pb.DeleteAliasRequest) -> ModelName:
    """The model whose alias shall go."""
    violations = Violations()
    model = ModelName.check(request.model, "model", violations)
    check_id(request.alias, "alias", violations)
    violations.raise_if_any()
    assert model is not None
    return model


def _check_text(text: str, field: str, longest: int, violations: Violations) -> None:
    # PostgreSQL has no place for the character 0.
    if len(text) > longest or "\0" in text:
        violations.add(field, f"must have at most {longest} characters, none of them U+0000")


def _check_request_id(text: str, violations: Violations) -> None:
    if len(text) > _MAX_REQUEST_ID or not text.isprintable():
        violations.add("request_id", f"must have at most {_MAX_REQUEST_ID} characters, all printable")
