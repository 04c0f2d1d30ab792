"""What to train, between the contract and the domain."""

import enum
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import BaseModelName, ModelName, ProjectName, SnapshotName
from enxerto.runtime.timestamps import duration
from enxerto.training.converters.fields import seconds
from enxerto.training.domain import RunSpec
from enxerto.training.service.base_models import base_model_id, choices, find_base_model
from enxerto.training.v1 import training_run_pb2
from enxerto.vision.catalogue import BaseModelFacts, get_facts
from enxerto.vision.finetuning import (
    AugmentPolicy,
    BatchNorm,
    ClassWeights,
    FinetuneSpec,
    Optimizer,
    Precision,
    QuantizationMode,
    Sampling,
    Schedule,
    Strategy,
    Weights,
)
from enxerto.vision.specs import Task

MAX_WORKERS: Final = 64
DEFAULT_ENCODER: Final = "efficientnet_lite0"
"""The encoder whose weights come with the installation."""

_LEAST_BATCH: Final = {Task.DETECTION: 2, Task.SEGMENTATION: 2}
"""Images of a worker's batch: new layers have batch norm, which learns nothing of one."""

_Enum = TypeVar("_Enum", bound=enum.StrEnum)
# What an unspecified value of the contract is called in the domain, where the domain has a word for it.
_UNSPECIFIED: Final = {BatchNorm: BatchNorm.AUTO, Precision: Precision.AUTO, QuantizationMode: QuantizationMode.NONE}
_NUMBERS: Final = (
    "image_size",
    "epochs",
    "batch_size",
    "learning_rate",
    "backbone_learning_rate_ratio",
    "stage_learning_rate_decay",
    "weight_decay",
    "warmup_fraction",
    "gradient_clip_norm",
)


class SpecReader:
    """Reads one TrainingSpec, noting every bad field under its path in the request."""

    def __init__(self, given: training_run_pb2.TrainingSpec, prefix: str, violations: Violations) -> None:
        self._given = given
        self._prefix = prefix
        self._violations = violations

    def read(self, parent: ProjectName | None, *, is_trial: bool = False) -> RunSpec | None:
        """The complete spec with every default filled in; None when something was bad.

        Args:
            parent: the project that everything must be of; None when that is checked already.
            is_trial: whether a search chose values, of which some may leave others without effect.
        """
        before = len(self._violations)
        given = self._given
        snapshot = SnapshotName.check(given.snapshot, f"{self._prefix}snapshot", self._violations)
        model = ModelName.check(given.model, f"{self._prefix}model", self._violations)
        for field, name in (("snapshot", snapshot), ("model", model)):
            if name is not None and parent is not None and name.project != parent.project:
                self._note(field, f"must be of the project {parent}")
        base_model, facts = self._base_model(given.base_model, "base_model")
        encoder = self._encoder(facts)
        finetune = self._finetune(facts, encoder)
        if facts is not None and not is_trial:
            finetune.validate_effect(self._violations, self._prefix)
        self._check_stages(facts, encoder, finetune)
        self._check_side(facts, encoder, finetune)
        workers = given.num_workers or 1
        if not 1 <= workers <= MAX_WORKERS:
            self._note("num_workers", f"must be in 1..{MAX_WORKERS}")
        elif not finetune.paints_pictures and finetune.batch_size < (
            least := workers * _LEAST_BATCH.get(finetune.task, 1)
        ):
            self._note("batch_size", f"must be at least {least}: a worker needs {least // workers} for {finetune.task}")
        if snapshot is None or model is None or base_model is None or len(self._violations) > before:
            return None
        return RunSpec(snapshot=snapshot, base_model=base_model, model=model, finetune=finetune, num_workers=workers)

    def _note(self, field: str, description: str) -> None:
        self._violations.add(f"{self._prefix}{field}", description)

    def _base_model(self, text: str, field: str) -> tuple[BaseModelName | None, BaseModelFacts | None]:
        name = BaseModelName.try_parse(text)
        facts = find_base_model(name) if name else None
        if facts is None:
            self._note(field, f"must be the name of a base model; {choices(text.rpartition('/')[2])}")
        return name, facts

    def _encoder(self, facts: BaseModelFacts | None) -> BaseModelFacts | None:
        if facts is None:
            return None
        if not facts.takes_encoder:
            if self._given.encoder:
                self._note(
                    "encoder", f"baseModels/{base_model_id(facts.name)} has its own backbone and takes no encoder"
                )
            return None
        if not self._given.encoder:
            return get_facts(DEFAULT_ENCODER)
        _, encoder = self._base_model(self._given.encoder, "encoder")
        if encoder is not None and encoder.task is not Task.CLASSIFICATION:
            self._note("encoder", "must be a backbone for classification, not a whole network")
        elif encoder is not None and not encoder.has_pyramid:
            self._note("encoder", "must have a feature pyramid, which convolutional backbones have")
        return encoder

    def _check_stages(self, facts: BaseModelFacts | None, encoder: BaseModelFacts | None, spec: FinetuneSpec) -> None:
        backbone = encoder or facts
        if backbone is not None and backbone.stages and spec.unfreezing.stages > len(backbone.stages):
            text = f"baseModels/{base_model_id(backbone.name)} has {len(backbone.stages)} stages"
            self._note("unfreezing.stages", text)

    def _check_side(self, facts: BaseModelFacts | None, encoder: BaseModelFacts | None, spec: FinetuneSpec) -> None:
        if facts is None:
            return
        if facts.task is Task.STYLE:
            if encoder is not None and not encoder.side_step:
                self._note("encoder", "must take pictures of any size, and has its own built in")
            return
        backbone = encoder or facts
        if problem := backbone.side_problem(spec.image_size or facts.preprocess.height):
            self._note("image_size", f"{problem}, for baseModels/{base_model_id(backbone.name)}")

    def _finetune(self, facts: BaseModelFacts | None, encoder: BaseModelFacts | None) -> FinetuneSpec:
        given = self._given
        spec = FinetuneSpec.with_defaults(
            facts.name if facts else "unknown",
            encoder=encoder.name if encoder else "",
            weights=self._chosen(Weights, given, "weights") or Weights.PRETRAINED,
            strategy=self._chosen(Strategy, given, "strategy") or Strategy.FEATURE_EXTRACTION,
            optimizer=self._chosen(Optimizer, given, "optimizer"),
            schedule=self._chosen(Schedule, given, "schedule"),
            batch_norm=self._chosen(BatchNorm, given, "batch_norm"),
            sampling=self._chosen(Sampling, given, "sampling"),
            precision=self._chosen(Precision, given, "precision"),
            ema_decay=given.ema_decay,
            accumulation_steps=given.accumulation_steps or 1,
            find_learning_rate=given.find_learning_rate,
            seed=given.seed,
            task=facts.task if facts else Task.CLASSIFICATION,
            **_present(given, *_NUMBERS),
        )
        spec = self._groups(spec)
        if facts is not None:
            spec.validate(self._violations, self._prefix)
        else:
            # Without its task, what is for some tasks only cannot be told; the numbers can.
            replace(spec, task=_task_that_fits(spec)).validate(self._violations, self._prefix)
        return spec

    def _groups(self, spec: FinetuneSpec) -> FinetuneSpec:
        given = self._given
        loss, augmentation = given.loss, given.augmentation
        weighting = self._chosen(ClassWeights, loss, "class_weights", "loss.")
        policy = self._chosen(AugmentPolicy, augmentation, "policy", "augmentation.")
        mode = self._chosen(QuantizationMode, given.quantization, "mode", "quantization.")
        checkpoints = _present(given.checkpoints, "every_epochs")
        if given.checkpoints.HasField("every_duration"):
            checkpoints["every_s"] = seconds(given.checkpoints.every_duration)
        stop = _present(given.stop, "early_stopping_patience", "target_score")
        if given.stop.HasField("max_duration"):
            stop["max_duration_s"] = seconds(given.stop.max_duration)
        unfreezing = given.unfreezing
        return replace(
            spec,
            head=replace(spec.head, hidden_units=given.head.hidden_units, dropout=given.head.dropout),
            unfreezing=replace(
                spec.unfreezing,
                stages=unfreezing.stages,
                epochs_per_stage=unfreezing.epochs_per_stage,
                **_present(unfreezing, "head_warmup_epochs"),
            ),
            loss=replace(
                spec.loss,
                label_smoothing=loss.label_smoothing,
                class_weights=weighting or spec.loss.class_weights,
                focal_gamma=loss.focal_gamma,
            ),
            augmentation=replace(
                spec.augmentation,
                policy=policy or spec.augmentation.policy,
                mixup_alpha=augmentation.mixup_alpha,
                cutmix_alpha=augmentation.cutmix_alpha,
                **_present(augmentation, "magnitude"),
            ),
            stop=replace(spec.stop, **stop),
            quantization=replace(
                spec.quantization,
                mode=mode or spec.quantization.mode,
                **_present(given.quantization, "max_score_loss"),
            ),
            checkpoints=replace(spec.checkpoints, **checkpoints),
            style=replace(
                spec.style,
                **_present(given.style, "content_weight", "style_weight", "total_variation_weight", "steps"),
            ),
        )

    def _chosen(self, kind: type[_Enum], message: Message, field: str, prefix: str = "") -> _Enum | None:
        """The value of an enum field; None when it is not given, or not known."""
        number = getattr(message, field)
        kind_on_wire = message.DESCRIPTOR.fields_by_name[field].enum_type
        assert kind_on_wire is not None, "only enum fields are chosen"
        values = kind_on_wire.values_by_number
        if number not in values:
            self._note(f"{prefix}{field}", f"{number} is not a known value")
            return None
        return _from_wire(kind, values[number].name) if number else None


def _from_wire(kind: type[_Enum], name: str) -> _Enum:
    return next(one for one in kind if name.endswith(f"_{one.value}"))


def _present(message: Message, *fields: str) -> dict[str, Any]:
    return {field: getattr(message, field) for field in fields if message.HasField(field)}


def _task_that_fits(spec: FinetuneSpec) -> Task:
    """A task for which as little as possible of the spec is out of place."""
    from_tasks: list[tuple[int, Task]] = []
    for task in Task:
        noted = Violations()
        replace(spec, task=task).validate(noted)
        from_tasks.append((len(noted), task))
    return min(from_tasks)[1]


def spec_to_proto(spec: RunSpec) -> training_run_pb2.TrainingSpec:
    """The spec as clients see it: every value in force."""
    tune, v1 = spec.finetune, training_run_pb2
    numbers = {name: getattr(tune, name) for name in _NUMBERS if name != "image_size"}
    style = {name: getattr(tune.style, name) for name in ("style_weight", "total_variation_weight")}
    return v1.TrainingSpec(
        snapshot=str(spec.snapshot),
        base_model=str(spec.base_model),
        encoder=f"baseModels/{base_model_id(tune.encoder)}" if tune.encoder else "",
        model=str(spec.model),
        num_workers=spec.num_workers,
        weights=_wire(v1.Weights, tune.weights),
        strategy=_wire(v1.Strategy, tune.strategy),
        optimizer=_wire(v1.Optimizer, tune.optimizer),
        schedule=_wire(v1.Schedule, tune.schedule),
        batch_norm=_wire(v1.BatchNorm, tune.batch_norm),
        sampling=_wire(v1.Sampling, tune.sampling),
        precision=_wire(v1.Precision, tune.precision),
        ema_decay=tune.ema_decay,
        accumulation_steps=tune.accumulation_steps,
        find_learning_rate=tune.find_learning_rate,
        seed=tune.seed,
        image_size=tune.image_size or None,
        head=v1.Head(hidden_units=tune.head.hidden_units, dropout=tune.head.dropout),
        unfreezing=v1.Unfreezing(
            stages=tune.unfreezing.stages,
            epochs_per_stage=tune.unfreezing.epochs_per_stage,
            head_warmup_epochs=tune.unfreezing.head_warmup_epochs,
        ),
        loss=v1.Loss(
            label_smoothing=tune.loss.label_smoothing,
            class_weights=_wire(v1.Loss.ClassWeights, tune.loss.class_weights),
            focal_gamma=tune.loss.focal_gamma,
        ),
        augmentation=v1.Augmentation(
            policy=_wire(v1.Augmentation.Policy, tune.augmentation.policy),
            magnitude=tune.augmentation.magnitude,
            mixup_alpha=tune.augmentation.mixup_alpha,
            cutmix_alpha=tune.augmentation.cutmix_alpha,
        ),
        stop=v1.StopRule(
            early_stopping_patience=tune.stop.early_stopping_patience,
            max_duration=duration(tune.stop.max_duration_s) if tune.stop.max_duration_s else None,
            target_score=tune.stop.target_score,
        ),
        quantization=v1.Quantization(
            mode=_wire(v1.Quantization.Mode, tune.quantization.mode), max_score_loss=tune.quantization.max_score_loss
        ),
        checkpoints=v1.CheckpointRule(
            every_epochs=tune.checkpoints.every_epochs,
            every_duration=duration(tune.checkpoints.every_s) if tune.checkpoints.every_s else None,
        ),
        style=v1.StyleOptions(content_weight=tune.style.content_weight, steps=tune.style.steps, **style),
        **numbers,
    )


def _wire(wrapper: Any, value: enum.StrEnum) -> Any:
    if _UNSPECIFIED.get(type(value)) == value:
        return 0
    values: Mapping[str, int] = dict(wrapper.items())
    return next(number for name, number in values.items() if name.endswith(f"_{value.value}"))
