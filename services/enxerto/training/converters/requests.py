"""Reads requests: every bad field is gathered before any is refused."""

from collections.abc import Mapping
from dataclasses import dataclass

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import (
    BaseModelName,
    ModelName,
    ProjectName,
    RunName,
    SnapshotName,
    check_id,
)
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.training.converters.fields import idempotency, read_labels
from enxerto.training.domain import (
    RunSpec,
)
from enxerto.training.ports import Idempotency
from enxerto.training.service.base_models import base_model_ids, find_base_model
from enxerto.training.v1 import (
    training_run_pb2,
    training_service_pb2,
)
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.finetuning import FinetuneSpec, Optimizer, Strategy, Weights

MAX_WORKERS = 64

_WEIGHTS = {
    training_run_pb2.WEIGHTS_UNSPECIFIED: Weights.PRETRAINED,
    training_run_pb2.WEIGHTS_PRETRAINED: Weights.PRETRAINED,
    training_run_pb2.WEIGHTS_NONE: Weights.NONE,
}
_STRATEGIES = {
    training_run_pb2.STRATEGY_UNSPECIFIED: Strategy.FEATURE_EXTRACTION,
    training_run_pb2.STRATEGY_FEATURE_EXTRACTION: Strategy.FEATURE_EXTRACTION,
    training_run_pb2.STRATEGY_FINE_TUNE: Strategy.FINE_TUNE,
}
_OPTIMIZERS = {
    training_run_pb2.OPTIMIZER_UNSPECIFIED: Optimizer.ADAMW,
    training_run_pb2.OPTIMIZER_ADAMW: Optimizer.ADAMW,
    training_run_pb2.OPTIMIZER_SGD: Optimizer.SGD,
}


@dataclass(frozen=True, slots=True)
class NewRun:
    """A CreateTrainingRun request."""

    parent: ProjectName
    run_id: str
    spec: RunSpec
    labels: dict[str, str]
    request: Idempotency | None


def new_run(request: training_service_pb2.CreateTrainingRunRequest) -> NewRun:
    """Read a CreateTrainingRun request and fill in the strategy's defaults."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    run_id = request.training_run_id
    if run_id:
        check_id(run_id, "training_run_id", violations)
    prefix, given = "training_run.spec.", request.training_run.spec
    snapshot = SnapshotName.check(given.snapshot, f"{prefix}snapshot", violations)
    model = ModelName.check(given.model, f"{prefix}model", violations)
    for field, name in (("snapshot", snapshot), ("model", model)):
        if name is not None and parent is not None and name.project != parent.project:
            violations.add(f"{prefix}{field}", f"must be of the project {parent}")
    base_model, facts = _base_model(given.base_model, f"{prefix}base_model", violations)
    finetune = _finetune(given, facts.name if facts else "unknown", prefix, violations)
    if facts and finetune.unfreeze_stages > len(facts.stages):
        violations.add(f"{prefix}unfreeze_stages", f"{base_model} has {len(facts.stages)} stages")
    workers = given.num_workers or 1
    if not 1 <= workers <= MAX_WORKERS:
        violations.add(f"{prefix}num_workers", f"must be in 1..{MAX_WORKERS}")
    elif finetune.batch_size < workers:
        violations.add(f"{prefix}batch_size", "must be at least the number of workers")
    labels = read_labels(request.training_run.labels, "training_run.labels", violations)
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    assert snapshot is not None
    assert model is not None
    assert base_model is not None
    spec = RunSpec(snapshot=snapshot, base_model=base_model, model=model, finetune=finetune, num_workers=workers)
    return NewRun(parent, run_id, spec, labels, key)


def _base_model(text: str, field: str, violations: Violations) -> tuple[BaseModelName | None, BaseModelFacts | None]:
    known = ", ".join(f"baseModels/{one}" for one in base_model_ids())
    name = BaseModelName.try_parse(text)
    facts = find_base_model(name) if name else None
    if facts is None:
        violations.add(field, f"must be one of {known}")
    return name, facts


def _finetune(
    given: training_run_pb2.TrainingSpec, base_model: str, prefix: str, violations: Violations
) -> FinetuneSpec:
    def optional(field: str) -> int | float | None:
        return getattr(given, field) if given.HasField(field) else None  # type: ignore[arg-type]

    def chosen(table: Mapping[int, object], field: str) -> object:
        value = getattr(given, field)
        if value not in table:
            violations.add(f"{prefix}{field}", f"{value} is not a known value")
        return table.get(value, table[0])

    numbers = {
        field: optional(field)
        for field in (
            "epochs",
            "batch_size",
            "learning_rate",
            "backbone_learning_rate_ratio",
            "weight_decay",
            "warmup_fraction",
            "unfreeze_stages",
            "early_stopping_patience",
        )
    }
    spec = FinetuneSpec.with_defaults(
        base_model,
        weights=chosen(_WEIGHTS, "weights"),  # type: ignore[arg-type]
        strategy=chosen(_STRATEGIES, "strategy"),  # type: ignore[arg-type]
        optimizer=chosen(_OPTIMIZERS, "optimizer"),  # type: ignore[arg-type]
        augment=given.augment,
        seed=given.seed,
        **numbers,  # type: ignore[arg-type]
    )
    spec.validate(violations, prefix)
    return spec


def run_name(text: str) -> RunName:
    """Read the name of a run."""
    return RunName.parse(text)


def watch(request: training_service_pb2.WatchTrainingRunRequest) -> tuple[RunName, int]:
    """Read a WatchTrainingRun request: the run and the last cursor seen."""
    violations = Violations()
    name = RunName.check(request.name, "name", violations)
    if request.after_cursor < 0:
        violations.add("after_cursor", "must not be negative")
    violations.raise_if_any()
    assert name is not None
    return name, request.after_cursor


def catalogue_page(request: training_service_pb2.ListBaseModelsRequest) -> PageRequest:
    """Read a ListBaseModels request."""
    violations = Violations()
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    return page
