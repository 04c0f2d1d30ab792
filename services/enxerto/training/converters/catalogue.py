"""Base models, and questions about them, between the contract and the domain."""

from dataclasses import dataclass

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import BaseModelName, ProjectName, SnapshotName, is_sha256
from enxerto.kernel.paging import PageRequest, page_request
from enxerto.runtime.timestamps import duration
from enxerto.training.converters.runs import progress_to_proto
from enxerto.training.domain import BaseModelRanking, Progress, TrainingEstimate
from enxerto.training.service.base_models import base_model_id, find_base_model
from enxerto.training.v1 import base_model_pb2, training_service_pb2
from enxerto.type.v1 import task_pb2, tensor_pb2
from enxerto.vision.catalogue import BaseModelFacts
from enxerto.vision.specs import PreprocessSpec, Task

_IMAGES_BY_DEFAULT = 2000


@dataclass(frozen=True, slots=True)
class RecommendationRequest:
    """A RecommendBaseModels request."""

    parent: ProjectName
    snapshot: SnapshotName
    base_models: tuple[BaseModelFacts, ...]
    """Empty for all whose weights are there."""
    max_images: int


@dataclass(frozen=True, slots=True)
class WeightsAnnouncement:
    """The header of an import of weights."""

    facts: BaseModelFacts
    sha256: str
    size_bytes: int


def catalogue_page(request: training_service_pb2.ListBaseModelsRequest) -> PageRequest:
    """Read a ListBaseModels request, but for its `search`."""
    violations = Violations()
    page = page_request(request.page_size, request.page_token, violations)
    violations.raise_if_any()
    return page


def recommendation(request: training_service_pb2.RecommendBaseModelsRequest) -> RecommendationRequest:
    """Read a RecommendBaseModels request."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    snapshot = SnapshotName.check(request.snapshot, "snapshot", violations)
    if snapshot is not None and parent is not None and snapshot.project != parent.project:
        violations.add("snapshot", f"must be of the project {parent}")
    chosen = []
    for position, text in enumerate(request.base_models):
        facts = _facts(text)
        if facts is None or facts.task is not Task.CLASSIFICATION:
            violations.add(f"base_models[{position}]", "must be a base model for CLASSIFICATION")
        else:
            chosen.append(facts)
    images = request.max_images or _IMAGES_BY_DEFAULT
    if not 20 <= images <= 100_000:
        violations.add("max_images", "must be in 20..100000")
    violations.raise_if_any()
    assert parent is not None
    assert snapshot is not None
    return RecommendationRequest(parent, snapshot, tuple(chosen), images)


def weights_header(request: training_service_pb2.ImportBaseModelWeightsRequest | None) -> WeightsAnnouncement:
    """Read the first message of an import of weights."""
    violations = Violations()
    if request is None or request.WhichOneof("payload") != "header":
        violations.add("header", "must be the first message")
        violations.raise_if_any()
    assert request is not None
    facts = _facts(request.header.base_model)
    if facts is None:
        violations.add("header.base_model", "must be the name of a base model")
    if not is_sha256(request.header.sha256):
        violations.add("header.sha256", "must be a lower-case hexadecimal sha256")
    if request.header.size_bytes <= 0:
        violations.add("header.size_bytes", "must be positive")
    violations.raise_if_any()
    assert facts is not None
    return WeightsAnnouncement(facts, request.header.sha256, request.header.size_bytes)


def weights_chunk(request: training_service_pb2.ImportBaseModelWeightsRequest) -> bytes:
    """Read a later message of an import of weights."""
    if request.WhichOneof("payload") != "chunk":
        violations = Violations()
        violations.add("payload", "must be a chunk after the header")
        violations.raise_if_any()
    return request.chunk


def _facts(text: str) -> BaseModelFacts | None:
    name = BaseModelName.try_parse(text)
    return find_base_model(name) if name else None


def base_model_to_proto(facts: BaseModelFacts, imported_weights: str = "") -> base_model_pb2.BaseModel:
    """A base model as clients see it."""
    return base_model_pb2.BaseModel(
        name=f"baseModels/{base_model_id(facts.name)}",
        display_name=facts.title,
        task=task_pb2.Task.Value(f"TASK_{facts.task.value}"),
        library=facts.library.partition("/")[0],
        licence=f"{facts.licence}: {facts.licence_note}",
        parameter_count=facts.parameters,
        feature_dim=facts.feature_dim,
        stages=facts.stages,
        preprocess=preprocess_to_proto(facts.preprocess),
        offline=facts.works_offline,
        takes_encoder=facts.takes_encoder,
        required_extra=facts.required_extra,
        imported_weights=imported_weights,
    )


def preprocess_to_proto(spec: PreprocessSpec) -> tensor_pb2.PreprocessSpec:
    """How a picture becomes the input."""
    kinds = tensor_pb2.PreprocessSpec.Resize
    return tensor_pb2.PreprocessSpec(**{**spec.to_json(), "resize": kinds.Value(f"RESIZE_{spec.resize.value}")})


def estimate_to_proto(found: Progress | TrainingEstimate) -> training_service_pb2.EstimateTrainingRunResponse:
    """Progress, or the estimate."""
    if isinstance(found, Progress):
        return training_service_pb2.EstimateTrainingRunResponse(progress=progress_to_proto(found))
    return training_service_pb2.EstimateTrainingRunResponse(
        estimate=training_service_pb2.TrainingEstimate(
            duration=duration(found.duration_s),
            epoch_duration=duration(found.epoch_duration_s),
            images_per_second=found.images_per_second,
            memory_bytes=found.memory_bytes,
            gpu_memory_bytes=found.gpu_memory_bytes,
            measured_steps=found.measured_steps,
            device=found.device,
        )
    )


def ranking_to_proto(found: Progress | BaseModelRanking) -> training_service_pb2.RecommendBaseModelsResponse:
    """Progress, or the ranking."""
    if isinstance(found, Progress):
        return training_service_pb2.RecommendBaseModelsResponse(progress=progress_to_proto(found))
    scores = [
        training_service_pb2.BaseModelScore(
            base_model=_resource(one.base_model),
            probe_accuracy=one.probe_accuracy,
            knn_accuracy=one.knn_accuracy,
            time_per_image=duration(one.time_per_image_s),
            parameter_count=one.parameter_count,
        )
        for one in found.scores
    ]
    skipped = {_resource(name): why for name, why in found.skipped.items()}
    return training_service_pb2.RecommendBaseModelsResponse(
        ranking=training_service_pb2.BaseModelRanking(scores=scores, skipped=skipped)
    )


def _resource(name: str) -> str:
    return f"baseModels/{base_model_id(name)}"
