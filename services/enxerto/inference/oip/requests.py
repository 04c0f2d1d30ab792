"""ModelInfer's requests, read: which tensor in which form, from where; gathers field violations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from enxerto.inference.domain import AnswerForm, Bytes, Payload, PayloadKind, ServableVersion
from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.oip.messages import InferRequest
from enxerto.inference.oip.outputs import RequestedOutput, requested_outputs
from enxerto.inference.oip.parameters import priority, region_slice, timeout_s
from enxerto.inference.oip.shared_memory import RegionError, Regions
from enxerto.inference.oip.tensors import (
    DATATYPES,
    TYPED_FIELDS,
    TensorError,
    check_finite,
    check_size,
    pack_pixels,
    parse_bytes,
)
from enxerto.kernel.errors import Violations
from enxerto.vision.specs import FIT_MULTIPLE, Task

MAX_SHARED_BYTES = 192 * 2**20
"""Of a tensor in shared memory, which no message limits: what one call to a replica carries."""

_FORMS = "FP32, FP16 or UINT8 (pixels), or BYTES (encoded images)"
_TAKEN = ("FP32", "FP16", "UINT8", "BYTES")


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for."""

    payload: Payload
    wanted: Sequence[RequestedOutput]
    timeout_s: float | None
    """What the request's own parameter allows; None when it says nothing."""


def call(request: InferRequest, version: ServableVersion, max_items: int, regions: Regions | None = None) -> Call:
    """Check a request against the version that serves, and take its bytes as they are.

    Args:
        request: as it came.
        version: that will answer.
        max_items: images in one request.
        regions: shared memory that this caller may use, if any.

    Raises:
        InvalidArgumentError: names every field that is wrong.
    """
    violations, message = Violations(), request.message
    seconds, urgency = timeout_s(message.parameters, violations), priority(message.parameters, violations)
    wanted = requested_outputs(message, version, regions, violations)
    if len(message.inputs) != 1:
        violations.add("inputs", f"must be exactly one tensor, {version.input_name!r}; has {len(message.inputs)}")
        violations.raise_if_any()
    tensor = message.inputs[0]
    if tensor.name != version.input_name:
        violations.add("inputs[0].name", f"must be {version.input_name!r}, is {tensor.name!r}")
    if tensor.datatype not in _TAKEN:
        violations.add("inputs[0].datatype", f"must be {_FORMS}, is {tensor.datatype!r}")
    _check_shape(tensor, version, max_items, violations)
    payload = None
    if tensor.datatype in DATATYPES:
        outputs = tuple(output.name for output in message.outputs)
        payload = _Contents(tensor, request.raw, regions, violations).payload(version.task, urgency, outputs)
    violations.raise_if_any()
    assert payload is not None
    return Call(payload, wanted, seconds)


def _check_shape(
    tensor: pb.ModelInferRequest.InferInputTensor, version: ServableVersion, max_items: int, violations: Violations
) -> None:
    shape = tuple(tensor.shape)
    if tensor.datatype not in _TAKEN:
        return
    encoded, pixels = tensor.datatype == "BYTES", tensor.datatype == "UINT8"
    if encoded:
        fits = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    else:
        fits = version.takes((shape[0], shape[3], *shape[1:3]) if pixels and len(shape) == 4 else shape)
    if not fits:
        words = "[N] or [N, 1]" if encoded else _input_words(version, pixels)
        violations.add("inputs[0].shape", f"must be {words}, is {list(shape)}")
    elif not 1 <= shape[0] <= max_items:
        violations.add("inputs[0].shape", f"the batch must be in 1..{max_items}, is {shape[0]}")


def _input_words(version: ServableVersion, pixels: bool) -> str:
    rows, columns = ("height", "width") if version.any_size else (version.height, version.width)
    words = f"[N, {rows}, {columns}, 3]" if pixels else f"[N, 3, {rows}, {columns}]"
    if not version.any_size:
        return words
    most = f"height at most {version.height}, width at most {version.width}"
    return f"{words} with {most}, both multiples of {FIT_MULTIPLE}"


class _Contents:
    """The elements of the one input tensor, wherever they lie."""

    def __init__(
        self,
        tensor: pb.ModelInferRequest.InferInputTensor,
        raw: Sequence[memoryview],
        regions: Regions | None,
        violations: Violations,
    ) -> None:
        self._tensor = tensor
        self._raw_contents = raw
        self._datatype: str = tensor.datatype
        self._shape = tuple(tensor.shape)
        self._count: int = math.prod(self._shape)
        self._regions = regions
        self._violations = violations
        self._field = "inputs[0].contents"

    def payload(self, task: Task, urgency: int, outputs: tuple[str, ...]) -> Payload | None:
        """What goes to a replica; None when something is wrong, which is then noted."""
        # What a shape with a negative side declares cannot be held against the contents.
        if min(self._shape, default=0) < 0:
            return None
        try:
            found = self._elements()
            if found is None or self._datatype not in _TAKEN:
                return None
            if isinstance(found, tuple):
                return _encoded(found, task, urgency, outputs)
            if self._datatype != "UINT8":
                check_finite(found, self._datatype)
        except (TensorError, RegionError) as error:
            self._violations.add(self._field, str(error))
            return None
        return Payload(
            PayloadKind.TENSOR,
            (found,),
            self._shape[0],
            self._shape[1:],
            datatype=self._datatype,
            priority=urgency,
            outputs=outputs,
        )

    def _elements(self) -> Bytes | tuple[bytes, ...] | None:
        """Raw numbers, or the elements of BYTES; None when that cannot be known."""
        kinds = TYPED_FIELDS if self._tensor.HasField("contents") else ()
        typed = [kind for kind in kinds if len(getattr(self._tensor.contents, f"{kind}_contents"))]
        place = region_slice(self._tensor.parameters, "inputs[0]", self._violations)
        raw = self._raw_contents
        if place is not None:
            if typed or raw:
                self._violations.add(self._field, "must be empty, and so raw_input_contents, with shared memory")
                return None
            self._field = "inputs[0].parameters"
            return self._raw(self._shared(place.region, place.size_bytes, place.offset_bytes))
        if raw:
            if len(raw) != 1:
                self._violations.add("raw_input_contents", f"must have one entry for each input, has {len(raw)} for 1")
            if typed:
                self._violations.add(self._field, "must be empty when raw_input_contents is used")
            self._field = "raw_input_contents[0]"
            return self._raw(raw[0])
        return self._typed(typed)

    def _shared(self, name: str, size_bytes: int, offset_bytes: int) -> bytes:
        if self._regions is None:
            raise RegionError("shared memory is not open to this caller: see the service's setting shared_memory")
        region = self._regions.get(name)
        if region is None:
            raise RegionError(f"no region {name!r} is registered")
        size = DATATYPES[self._datatype].size_bytes
        if size is not None and size_bytes != size * self._count:
            needed = size * self._count
            text = f"{self._datatype} of shape {list(self._shape)} needs {needed}"
            raise RegionError(f"shared_memory_byte_size is {size_bytes}, {text}")
        if size_bytes > MAX_SHARED_BYTES:
            raise RegionError(f"shared_memory_byte_size is {size_bytes}, the limit is {MAX_SHARED_BYTES}")
        return region.read(size_bytes, offset_bytes)

    def _raw(self, raw: Bytes) -> Bytes | tuple[bytes, ...]:
        if self._datatype == "BYTES":
            return parse_bytes(raw, self._count)
        check_size(raw, self._datatype, self._shape)
        return raw

    def _typed(self, found: list[str]) -> Bytes | tuple[bytes, ...] | None:
        datatype = self._datatype
        expected = DATATYPES[datatype].typed
        fields = "raw_input_contents" + (f" or {expected}_contents" if expected else "")
        if not found and self._count:
            raise TensorError(f"is empty: {datatype} is sent as {fields}")
        wrong = [kind for kind in found if kind != expected]
        for kind in wrong:
            self._violations.add(f"{self._field}.{kind}_contents", f"{datatype} is sent as {fields}")
        if wrong or expected is None or datatype not in _TAKEN:
            return None
        values = getattr(self._tensor.contents, f"{expected}_contents")
        if len(values) != self._count:
            raise TensorError(f"has {len(values)} elements, the shape declares {self._count}")
        if datatype == "BYTES":
            return tuple(values)
        return pack_pixels(values) if datatype == "UINT8" else np.asarray(values, "<f4").tobytes()


def _encoded(images: tuple[bytes, ...], task: Task, urgency: int, outputs: tuple[str, ...]) -> Payload:
    # Masks and paintings as numbers are as large as the pictures that were sent: each request answers for its own.
    large = task not in (Task.CLASSIFICATION, Task.DETECTION)
    return Payload(
        PayloadKind.ENCODED,
        images,
        len(images),
        form=AnswerForm.TENSORS if large else AnswerForm.PICTURES,
        alone=large,
        priority=urgency,
        outputs=outputs,
    )
