"""Sweeps and their search spaces, between the contract and the domain."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from enxerto.kernel.errors import InvalidArgumentError, Violations
from enxerto.kernel.names import ProjectName, check_id
from enxerto.runtime.timestamps import timestamp
from enxerto.training.converters.fields import idempotency, read_labels, status_to_proto
from enxerto.training.converters.specs import SpecReader, spec_to_proto
from enxerto.training.domain import Choice, NumberRange, RunSpec, Sweep, SweepParameter, SweepPlan
from enxerto.training.ports import Idempotency
from enxerto.training.v1 import sweep_pb2, sweep_service_pb2, training_run_pb2

_MAX_PARAMETERS: Final = 16
_MAX_TRIALS: Final = 1000
_MAX_CHOICES: Final = 100
_FIXED: Final = {"snapshot": "every trial trains on the same images", "model": "every trial registers one model"}
_WHOLE: Final = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}


@dataclass(frozen=True, slots=True)
class NewSweep:
    """A CreateSweep request."""

    parent: ProjectName
    sweep_id: str
    plan: SweepPlan
    labels: dict[str, str]
    request: Idempotency | None


def new_sweep(request: sweep_service_pb2.CreateSweepRequest) -> NewSweep:
    """Read a CreateSweep request; every value that a parameter may take is tried in the spec."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    if request.sweep_id:
        check_id(request.sweep_id, "sweep_id", violations)
    given = request.sweep
    spec = SpecReader(given.spec, "sweep.spec.", violations).read(parent)
    if not 1 <= len(given.parameters) <= _MAX_PARAMETERS:
        violations.add("sweep.parameters", f"must be 1 to {_MAX_PARAMETERS}")
    parameters = tuple(
        _parameter(one, f"sweep.parameters[{position}]", given.spec if spec else None, violations)
        for position, one in enumerate(given.parameters)
    )
    for position, one in enumerate(given.parameters):
        if one.field in {earlier.field for earlier in given.parameters[:position]}:
            violations.add(f"sweep.parameters[{position}].field", f"{one.field} is there already")
    if not 1 <= given.max_trials <= _MAX_TRIALS:
        violations.add("sweep.max_trials", f"must be in 1..{_MAX_TRIALS}")
    parallel = given.max_parallel_trials or 1
    if not 1 <= parallel <= max(given.max_trials, 1):
        violations.add("sweep.max_parallel_trials", "must be in 1..max_trials")
    if not 0 <= given.pruning_grace_epochs <= 10_000:
        violations.add("sweep.pruning_grace_epochs", "must be in 0..10000")
    if not 0 <= given.seed < 2**32:
        violations.add("sweep.seed", "must be in 0..4294967295")
    labels = read_labels(given.labels, "sweep.labels", violations)
    key = idempotency(request, violations)
    violations.raise_if_any()
    assert parent is not None
    assert spec is not None
    plan = SweepPlan(
        template=given.spec.SerializeToString(deterministic=True),
        spec=spec,
        parameters=parameters,
        max_trials=given.max_trials,
        max_parallel_trials=parallel,
        pruning_grace_epochs=given.pruning_grace_epochs,
        seed=given.seed,
    )
    return NewSweep(parent, request.sweep_id, plan, labels, key)


def _parameter(
    given: sweep_pb2.SweepParameter, path: str, spec: training_run_pb2.TrainingSpec | None, violations: Violations
) -> SweepParameter:
    before = len(violations)
    field = find_field(given.field)
    if field is None:
        violations.add(f"{path}.field", "must be the path of a single value in TrainingSpec, such as loss.focal_gamma")
    elif given.field in _FIXED:
        violations.add(f"{path}.field", f"cannot vary: {_FIXED[given.field]}")
    values, tried = _values(given, path, field, violations)
    if spec is not None and len(violations) == before:
        for text in tried:
            _try(spec, given.field, text, path, violations)
    return SweepParameter(given.field, values)


def _values(
    given: sweep_pb2.SweepParameter, path: str, field: FieldDescriptor | None, violations: Violations
) -> tuple[NumberRange | Choice, tuple[str, ...]]:
    """The values as the domain has them, and those to try: the bounds of a range, and every choice."""
    match given.WhichOneof("values"):
        case "float_range":
            numbers = given.float_range
            _check_range(numbers.min, numbers.max, numbers.log, f"{path}.float_range", violations)
            if field is not None and field.cpp_type != FieldDescriptor.CPPTYPE_DOUBLE:
                violations.add(f"{path}.float_range", f"{given.field} is not a number with a fraction")
            bounds = (str(numbers.min), str(numbers.max))
            return NumberRange(numbers.min, numbers.max, numbers.log, whole=False), bounds
        case "int_range":
            whole = given.int_range
            _check_range(whole.min, whole.max, whole.log, f"{path}.int_range", violations)
            if field is not None and field.cpp_type not in _WHOLE:
                violations.add(f"{path}.int_range", f"{given.field} is not a whole number")
            return NumberRange(whole.min, whole.max, whole.log, whole=True), (str(whole.min), str(whole.max))
        case "choices":
            values = tuple(given.choices.values)
            if not 1 <= len(values) <= _MAX_CHOICES or len(set(values)) < len(values):
                violations.add(f"{path}.choices.values", f"must be 1 to {_MAX_CHOICES} different values")
            return Choice(values), values
    violations.add(path, "needs float_range, int_range or choices")
    return Choice(()), ()


def _check_range(low: float, high: float, log: bool, path: str, violations: Violations) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        violations.add(f"{path}.max", "must be greater than min, and both finite")
    if log and low <= 0:
        violations.add(f"{path}.min", "must be positive when each factor is as likely")


def _try(spec: training_run_pb2.TrainingSpec, field: str, text: str, path: str, violations: Violations) -> None:
    tried = training_run_pb2.TrainingSpec()
    tried.CopyFrom(spec)
    noted = Violations()
    try:
        set_field(tried, field, text)
        SpecReader(tried, "", noted).read(None)
        noted.raise_if_any()
    except ValueError as error:
        violations.add(path, f"{text!r}: {error}")
    except InvalidArgumentError as error:
        for one in error.violations:
            about = "" if one.field == field else f"{one.field} "
            violations.add(path, f"{text!r}: {about}{one.description}")


def find_field(path: str) -> FieldDescriptor | None:
    """The single value of TrainingSpec that a path names, or None."""
    message, field = training_run_pb2.TrainingSpec.DESCRIPTOR, None
    names = path.split(".")
    for position, name in enumerate(names):
        field = message.fields_by_name.get(name)
        if field is None or field.is_repeated:
            return None
        if position < len(names) - 1:
            if field.message_type is None:
                return None
            message = field.message_type
    return None if field is None or field.message_type is not None else field


def set_field(spec: training_run_pb2.TrainingSpec, path: str, text: str) -> None:
    """Set a value that is written as in JSON without quotes; raises ValueError."""
    field = find_field(path)
    if field is None:
        raise ValueError(f"{path} is not a single value of TrainingSpec")
    *outer, name = path.split(".")
    owner: Message = spec
    for one in outer:
        owner = getattr(owner, one)
    setattr(owner, name, _value(field, text))


def _value(field: FieldDescriptor, text: str) -> object:
    if field.enum_type is not None:
        if text not in field.enum_type.values_by_name:
            known = ", ".join(one.name for one in field.enum_type.values if one.number)
            raise ValueError(f"must be one of {known}")
        return field.enum_type.values_by_name[text].number
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise ValueError("must be true or false")
        return text == "true"
    if field.cpp_type in _WHOLE:
        number = int(text)
        bits = 31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 63
        if not -(2**bits) <= number < 2**bits:
            raise ValueError("is too large")
        return number
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return float(text)
    return text


def trial_spec(plan: SweepPlan, parameters: Mapping[str, str]) -> RunSpec:
    """What a trial trains: the template with its values, then the defaults that follow.

    Raises:
        InvalidArgumentError: the values do not go together.
    """
    spec = training_run_pb2.TrainingSpec.FromString(plan.template)
    for field, text in parameters.items():
        set_field(spec, field, text)
    violations = Violations()
    read = SpecReader(spec, "spec.", violations).read(None, is_trial=True)
    violations.raise_if_any()
    assert read is not None
    return read


def sweep_to_proto(sweep: Sweep) -> sweep_pb2.Sweep:
    """A sweep as clients see it."""
    plan, best = sweep.plan, sweep.best
    return sweep_pb2.Sweep(
        name=str(sweep.name),
        spec=spec_to_proto(plan.spec),
        parameters=[_parameter_to_proto(one) for one in plan.parameters],
        max_trials=plan.max_trials,
        max_parallel_trials=plan.max_parallel_trials,
        pruning_grace_epochs=plan.pruning_grace_epochs,
        seed=plan.seed,
        state=sweep_pb2.Sweep.State.Value(f"STATE_{sweep.state.value}"),
        best_run=str(best.run) if best else "",
        best_score=(best.score or 0.0) if best else 0.0,
        trials=[
            sweep_pb2.SweepTrial(
                training_run=str(one.run),
                parameters=dict(one.parameters),
                state=training_run_pb2.TrainingRun.State.Value(f"STATE_{one.state.value}"),
                score=one.score,
            )
            for one in sweep.trials
        ],
        error=status_to_proto(sweep.error),
        labels=dict(sweep.labels),
        create_time=timestamp(sweep.create_time),
        update_time=timestamp(sweep.update_time),
        end_time=timestamp(sweep.end_time),
        etag=f'"{sweep.revision}"',
    )


def _parameter_to_proto(one: SweepParameter) -> sweep_pb2.SweepParameter:
    values = one.values
    if isinstance(values, Choice):
        return sweep_pb2.SweepParameter(field=one.field, choices=sweep_pb2.Choices(values=values.values))
    if values.whole:
        whole = sweep_pb2.IntRange(min=int(values.low), max=int(values.high), log=values.log)
        return sweep_pb2.SweepParameter(field=one.field, int_range=whole)
    numbers = sweep_pb2.FloatRange(min=values.low, max=values.high, log=values.log)
    return sweep_pb2.SweepParameter(field=one.field, float_range=numbers)
