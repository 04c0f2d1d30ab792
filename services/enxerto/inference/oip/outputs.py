"""The outputs that a request asks for, and in which form."""

from collections.abc import Sequence
from dataclasses import dataclass

from enxerto.inference.domain import ServableVersion
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.parameters import RegionSlice, classes_wanted, region_slice
from enxerto.inference.oip.shared_memory import RegionError, Regions
from enxerto.kernel.errors import Violations
from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.specs import Task


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output, as it is wanted."""

    name: str
    classes: int = 0
    """So many of the best classes, as `score:index:label`; 0 for the numbers."""
    place: RegionSlice | None = None
    """Where in shared memory it is to be written; None for the answer itself."""


def requested_outputs(
    request: pb.ModelInferRequest, version: ServableVersion, regions: Regions | None, violations: Violations
) -> Sequence[RequestedOutput]:
    """What is asked for in that order, or every output of the version."""
    names = [spec.name for spec in version.outputs]
    if not request.outputs:
        return [RequestedOutput(name) for name in names]
    found: list[RequestedOutput] = []
    for index, output in enumerate(request.outputs):
        field = f"outputs[{index}]"
        if output.name not in names:
            violations.add(f"{field}.name", f"must be {' or '.join(map(repr, names))}, is {output.name!r}")
        elif any(one.name == output.name for one in found):
            violations.add(f"{field}.name", f"{output.name!r} is asked for twice")
        classes = classes_wanted(output.parameters, field, violations)
        if classes and (version.task is not Task.CLASSIFICATION or output.name == EMBEDDING.name):
            violations.add(f"{field}.parameters[classification]", "needs an output with a score for each class")
        place = region_slice(output.parameters, field, violations)
        if place is not None:
            _check_place(place, classes, regions, field, violations)
        found.append(RequestedOutput(output.name, classes, place))
    return found


def outputs_of(
    request: pb.ModelInferRequest, version: ServableVersion, regions: Regions | None
) -> Sequence[RequestedOutput]:
    """What is asked for of a version that answered.

    Raises:
        InvalidArgumentError: it has not what was asked for, or the shared memory is gone.
    """
    violations = Violations()
    found = requested_outputs(request, version, regions, violations)
    violations.raise_if_any()
    return found


def _check_place(place: RegionSlice, classes: int, regions: Regions | None, field: str, violations: Violations) -> None:
    field = f"{field}.parameters[shared_memory_region]"
    if classes:
        violations.add(field, "is not for an output with classification, whose size nobody knows before")
    if regions is None:
        violations.add(field, "shared memory is not open to this caller: see the service's setting shared_memory")
        return
    region = regions.get(place.region)
    if region is None:
        violations.add(field, f"no region {place.region!r} is registered")
        return
    try:
        region.check(place.size_bytes, place.offset_bytes)
    except RegionError as error:
        violations.add(field, str(error))
