"""Training settings between people and the contract's TrainingSpec: by the contract's own names, at any depth.

Enums are their short names in either case (`fine-tune`), durations are seconds or timedeltas, groups are mappings.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypedDict, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from enxerto.training.v1 import training_run_pb2

_NAMED_APART = ("snapshot", "base_model", "model")
_DURATION = Duration.DESCRIPTOR.full_name
# The stubs know descriptors of two implementations, of which either may be there.
_Field = Any
_Enum = Any

_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)


class HeadSettings(TypedDict, total=False):
    """The new classifier. Classification only."""

    hidden_units: int
    dropout: float


class UnfreezingSettings(TypedDict, total=False):
    """Which stages of the backbone learn, and from when on."""

    stages: int
    epochs_per_stage: int
    head_warmup_epochs: int


class LossSettings(TypedDict, total=False):
    """What is minimised."""

    label_smoothing: float
    class_weights: str
    focal_gamma: float


class AugmentationSettings(TypedDict, total=False):
    """How training images are varied."""

    policy: str
    magnitude: int
    mixup_alpha: float
    cutmix_alpha: float


class StopSettings(TypedDict, total=False):
    """When training ends before its last epoch."""

    early_stopping_patience: int
    max_duration: float | timedelta
    target_score: float


class QuantizationSettings(TypedDict, total=False):
    """A smaller version of the exported graph."""

    mode: str
    max_score_loss: float


class CheckpointSettings(TypedDict, total=False):
    """When a run writes down where it is."""

    every_epochs: int
    every_duration: float | timedelta


class StyleSettings(TypedDict, total=False):
    """The STYLE task."""

    content_weight: float
    style_weight: float
    total_variation_weight: float
    steps: int


class TrainingSettings(TypedDict, total=False):
    """What may be said of a run besides its data, its base model and its model; docs/api/training.md has each rule.

    What is left out, or None, takes the default of the task and the strategy.
    """

    weights: str | None
    strategy: str | None
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    backbone_learning_rate_ratio: float | None
    weight_decay: float | None
    optimizer: str | None
    warmup_fraction: float | None
    seed: int | None
    num_workers: int | None
    encoder: str | None
    image_size: int | None
    head: HeadSettings | None
    unfreezing: UnfreezingSettings | None
    stage_learning_rate_decay: float | None
    batch_norm: str | None
    schedule: str | None
    loss: LossSettings | None
    augmentation: AugmentationSettings | None
    sampling: str | None
    ema_decay: float | None
    precision: str | None
    gradient_clip_norm: float | None
    accumulation_steps: int | None
    stop: StopSettings | None
    find_learning_rate: bool | None
    quantization: QuantizationSettings | None
    checkpoints: CheckpointSettings | None
    style: StyleSettings | None


def training_spec(settings: Mapping[str, Any]) -> training_run_pb2.TrainingSpec:
    """Settings as a message.

    Raises:
        TypeError: names the settings that do not exist.
        ValueError: a value that its setting does not take.
    """
    if apart := sorted(set(settings) & set(_NAMED_APART)):
        raise TypeError(f"{', '.join(apart)} is an argument of its own")
    spec = training_run_pb2.TrainingSpec()
    fill(spec, settings, "")
    if spec.encoder and "/" not in spec.encoder:
        spec.encoder = f"baseModels/{spec.encoder}"
    return spec


def settings_of(spec: training_run_pb2.TrainingSpec) -> dict[str, Any]:
    """The settings of a message that are set, as a caller would give them."""
    return {name: value for name, value in read_fields(spec).items() if name not in _NAMED_APART}


def parse_settings(assignments: Iterable[str]) -> TrainingSettings:
    """Settings as people type them, `["epochs=5", "loss.focal_gamma=2"]`, as arguments for `train`.

    Raises:
        ValueError: an assignment is not FIELD=VALUE, or the value is not what the field takes.
        TypeError: a setting that does not exist.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} must be FIELD=VALUE, such as loss.label_smoothing=0.1")
        *groups, name = path.strip().replace("-", "_").split(".")
        field = field_of(".".join([*groups, name]))
        inner = settings
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = _parse(field, path, text.strip())
    fill(training_run_pb2.TrainingSpec(), settings, "")
    return cast(TrainingSettings, settings)


def field_of(path: str) -> _Field:
    """The field of TrainingSpec that a dotted path means.

    Raises:
        TypeError: there is none, or it is a group.
    """
    descriptor: Any = training_run_pb2.TrainingSpec.DESCRIPTOR
    *groups, name = path.split(".")
    for group in groups:
        field = descriptor.fields_by_name.get(group)
        if field is None or field.message_type is None or field.message_type.full_name == _DURATION:
            raise _unknown(descriptor, path)
        descriptor = field.message_type
    found = descriptor.fields_by_name.get(name)
    if found is None or (not groups and name in _NAMED_APART):
        raise _unknown(descriptor, path)
    if _is_group(found):
        inner = ", ".join(f"{path}.{one.name}" for one in found.message_type.fields)
        raise TypeError(f"{path} is a group: {inner}")
    return found


def _unknown(descriptor: Any, path: str) -> TypeError:
    group = path.rpartition(".")[0]
    known = ", ".join(field.name for field in descriptor.fields if field.name not in _NAMED_APART)
    return TypeError(f"no such training setting: {path}; {group or 'there'} has {known}")


def _is_group(field: _Field) -> bool:
    return field.message_type is not None and field.message_type.full_name != _DURATION


def fill(message: Message, settings: Mapping[str, Any], prefix: str) -> None:
    """Set a message's fields by their names.

    Raises:
        TypeError: names the settings that do not exist.
        ValueError: a value that its setting does not take.
    """
    fields = message.DESCRIPTOR.fields_by_name
    if unknown := sorted(set(settings) - set(fields)):
        raise TypeError(f"no such setting: {', '.join(prefix + name for name in unknown)}")
    for name, value in settings.items():
        if value is None:
            continue
        field = fields[name]
        if _is_group(field):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{name} must be a mapping, is {value!r}")
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value, f"{prefix}{name}.")
        elif field.enum_type is not None:
            text = enum_text(field.enum_type, f"{prefix}{name}", value)
            setattr(message, name, field.enum_type.values_by_name[text].number)
        else:
            try:
                _set(message, field, value)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{prefix}{name} does not take {value!r}: {error}") from error


def _set(message: Message, field: _Field, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        seconds = value if isinstance(value, timedelta) else timedelta(seconds=value)
        getattr(message, field.name).FromTimedelta(seconds)
    else:
        setattr(message, field.name, value)


def _prefix(enum: _Enum) -> str:
    first: str = enum.values_by_number[0].name
    return first.removesuffix("UNSPECIFIED")


def short_names(enum: _Enum) -> list[str]:
    """What a person may choose."""
    return [value.name.removeprefix(_prefix(enum)) for value in enum.values if value.number]


def enum_text(enum: _Enum, path: str, text: object) -> str:
    """An enum's full name from its short one in either case.

    Raises:
        ValueError: it is not one of the enum's.
    """
    name = _prefix(enum) + str(text).upper().replace("-", "_").removeprefix(_prefix(enum))
    if name not in enum.values_by_name or not enum.values_by_name[name].number:
        raise ValueError(f"{path}: {text!r} is not one of {', '.join(short_names(enum))}")
    return name


def _parse(field: _Field, path: str, text: str) -> Any:
    if field.enum_type is not None:
        enum_text(field.enum_type, path, text)
        return text
    if field.type in (FieldDescriptor.TYPE_STRING,):
        return text
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{path} must be true or false, is {text!r}")
        return text.lower() == "true"
    number = float if field.type in _FLOATS or field.message_type is not None else int
    try:
        return number(text)
    except ValueError:
        kind = "seconds" if field.message_type is not None else "a number" if number is float else "a whole number"
        raise ValueError(f"{path} must be {kind}, is {text!r}") from None


def read_fields(message: Message) -> dict[str, Any]:
    """The fields of a message that are set, as a caller would give them."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if field.is_repeated:
            if value:
                found[field.name] = list(value)
        elif field.message_type is not None:
            found[field.name] = value.ToTimedelta().total_seconds() if not _is_group(field) else read_fields(value)
        elif field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            if value and known is not None:
                found[field.name] = known.name.removeprefix(_prefix(field.enum_type))
        elif field.has_presence or value:
            found[field.name] = value
    return found
