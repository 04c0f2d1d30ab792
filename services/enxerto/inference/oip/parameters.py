"""Parameters of requests and tensors; those that are not known here are ignored, as the protocol wants it."""

from collections.abc import Mapping
from dataclasses import dataclass

from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.kernel.errors import Violations

Parameters = Mapping[str, pb.InferParameter]

_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"


@dataclass(frozen=True, slots=True)
class RegionSlice:
    """Where in a shared-memory region a tensor lies."""

    region: str
    size_bytes: int
    offset_bytes: int


def timeout_s(parameters: Parameters, violations: Violations) -> float | None:
    """Seconds that the request may take; None when it does not say."""
    micros = _whole(parameters, "timeout", "parameters", violations)
    return micros / 1e6 if micros else None


def priority(parameters: Parameters, violations: Violations) -> int:
    """How urgent the request is: 1 goes first; 0 is the deployment's default, as with Triton."""
    return _whole(parameters, "priority", "parameters", violations)


def classes_wanted(parameters: Parameters, field: str, violations: Violations) -> int:
    """How many of the best classes an output is to name; 0 for all scores as numbers."""
    return _whole(parameters, "classification", f"{field}.parameters", violations)


def region_slice(parameters: Parameters, field: str, violations: Violations) -> RegionSlice | None:
    """Where a tensor lies, when it lies in shared memory."""
    if _REGION not in parameters:
        for key in (_SIZE, _OFFSET):
            if key in parameters:
                violations.add(f"{field}.parameters[{key}]", f"needs {_REGION} beside it")
        return None
    name = parameters[_REGION]
    if name.WhichOneof("parameter_choice") != "string_param" or not name.string_param:
        violations.add(f"{field}.parameters[{_REGION}]", "must be the name of a region, as a text")
    size = _whole(parameters, _SIZE, f"{field}.parameters", violations)
    if not size and not (_SIZE in parameters and violations):
        violations.add(f"{field}.parameters[{_SIZE}]", "must be the number of bytes, at least 1")
    return RegionSlice(name.string_param, size, _whole(parameters, _OFFSET, f"{field}.parameters", violations))


def _whole(parameters: Parameters, key: str, field: str, violations: Violations) -> int:
    """A parameter that is a whole number, 0 when absent."""
    if key not in parameters:
        return 0
    kind = parameters[key].WhichOneof("parameter_choice")
    value = getattr(parameters[key], kind) if kind in ("int64_param", "uint64_param") else None
    if value is None or value < 0:
        violations.add(f"{field}[{key}]", "must be a whole number, at least 0")
        return 0
    return int(value)
