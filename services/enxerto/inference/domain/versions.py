"""Versions, as far as serving needs to know them, and their answers."""

from dataclasses import dataclass
from datetime import datetime

from enxerto.inference.domain.requests import PictureAnswer, Tensor, Timing
from enxerto.kernel.names import VersionName
from enxerto.vision.contracts import EMBEDDING, INPUT_NAME, MAX_DETECTIONS
from enxerto.vision.specs import FIT_MULTIPLE, Resize, Task, TensorSpec

_FLOAT32_BYTES = 4
_BOX_BYTES = 4 * _FLOAT32_BYTES + _FLOAT32_BYTES + 8 + 1
_WARM_UP_SIDE = 256


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a number or an alias means, before anything more is asked of the version."""

    version: VersionName
    ready: bool
    """Whether the registry lets it be served."""


@dataclass(frozen=True, slots=True)
class ServableVersion:
    """What the front needs to know of a version to answer for it."""

    name: VersionName
    task: Task
    labels: tuple[str, ...]
    """Class names by index; none are needed for STYLE."""
    height: int
    """Rows of the graph's input, pixels; the most that there are when it takes any size."""
    width: int
    """Columns of the graph's input, pixels; likewise."""
    outputs: tuple[TensorSpec, ...]
    """Of the graph, in the order of the task's contract, and then the optional ones that it has."""
    resize: Resize = Resize.CENTER_CROP
    input_name: str = INPUT_NAME
    golden_sha256: str = ""
    """Of the file with golden inputs; empty when the version has none."""

    @property
    def any_size(self) -> bool:
        """Whether the graph takes inputs of any size up to its own."""
        return self.resize is Resize.FIT

    @property
    def embedding_dimension(self) -> int | None:
        """Numbers in an embedding; None when the graph gives none."""
        return next((one.shape[1] for one in self.outputs if one.name == EMBEDDING.name), None)

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape, (N, 3, rows, columns), may go into the graph."""
        if len(shape) != 4 or shape[1] != 3:
            return False
        rows, columns = shape[2:]
        if not self.any_size:
            return (rows, columns) == (self.height, self.width)
        return (
            0 < rows <= self.height
            and 0 < columns <= self.width
            and not (rows % FIT_MULTIPLE or columns % FIT_MULTIPLE)
        )

    @property
    def warm_up_row(self) -> tuple[int, int, int]:
        """Shape of an image that costs little and goes through the whole graph, (3, rows, columns)."""
        if not self.any_size:
            return 3, self.height, self.width
        rows, columns = (
            max(FIT_MULTIPLE, min(side // FIT_MULTIPLE * FIT_MULTIPLE, _WARM_UP_SIDE))
            for side in (self.height, self.width)
        )
        return 3, rows, columns

    @property
    def input_bytes(self) -> int:
        """Bytes of one image as float32; of the largest one when the graph takes any size."""
        return 3 * _FLOAT32_BYTES * self.height * self.width

    def answer_bytes(self, rows: int, columns: int) -> int:
        """Bytes of what the graph gives for one image of `rows` x `columns` pixels."""
        if self.task is Task.CLASSIFICATION:
            return _FLOAT32_BYTES * (len(self.labels) + (self.embedding_dimension or 0))
        if self.task is Task.DETECTION:
            return _BOX_BYTES * MAX_DETECTIONS
        mask = rows * columns
        return mask if self.task is Task.SEGMENTATION else 3 * _FLOAT32_BYTES * mask


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one request: `tensors`, or `pictures`."""

    version: ServableVersion
    tensors: tuple[Tensor, ...]
    pictures: tuple[PictureAnswer, ...]
    items: int
    timing: Timing
    identity: str = ""
    """Sixteen hexadecimal digits that no other answer has."""
    time: datetime = datetime.min
    """When it was given."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return sum(len(one.content) for one in self.tensors) + sum(one.held_bytes for one in self.pictures)

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, over all images.

        Raises:
            LookupError: there is none.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise LookupError(f"the replica's answer has no {name!r}")
