"""What models say of images."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Category:
    """A class and how likely it is."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a request went, in seconds."""

    queue_s: float
    decode_s: float
    compute_s: float
    encode_s: float = 0.0
    """Turning the network's output into the answer."""
    cached: bool = False
    """Whether the answer was kept from an earlier request with the same content: all times are 0."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one image."""

    label: str
    """The most likely class."""
    probability: float
    categories: tuple[Category, ...] = field(repr=False)
    """Most likely first."""
    model_version: str
    """Full name of the version that answered."""
    timings: Timings = field(repr=False)
    """Of the request that the image was part of."""
    prediction_id: str = field(default="", repr=False)
    """Names the request's answer when feedback is given."""
    image_index: int = field(default=0, repr=False)
    """Of the image in its request."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """Where a model's backbone places one image: near images look alike to the model."""

    values: tuple[float, ...] = field(repr=False)
    """Pooled features before the head, of any scale; as many in every answer of a version."""
    model_version: str
    timings: Timings = field(repr=False)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the picture as it was sent, upright; the origin is the upper left corner."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object that was found."""

    label: str
    index: int
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Detection:
    """What a model found in one image."""

    objects: tuple[DetectedObject, ...]
    """Highest score first."""
    model_version: str
    timings: Timings = field(repr=False)


@dataclass(frozen=True, slots=True)
class Polygon:
    """A closed outline in pixels of the picture as it was sent."""

    points: tuple[tuple[float, float], ...]
    """x and y of each corner."""
    hole: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """The pixels of one class."""

    label: str
    index: int
    pixel_count: int
    rle: str = field(repr=False)
    """COCO's compressed run lengths, when they were asked for."""
    polygons: tuple[Polygon, ...] = field(repr=False)
    """Outlines, when they were asked for."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The class of every pixel of one image."""

    width: int
    height: int
    segments: tuple[Segment, ...]
    """The classes that occur, the largest first."""
    confidence: float
    """Mean probability of the chosen classes."""
    png: bytes = field(repr=False)
    """Grey PNG whose values are class indices, unless another format was asked for."""
    model_version: str
    timings: Timings = field(repr=False)


@dataclass(frozen=True, slots=True)
class StylizedImage:
    """A picture that a model painted."""

    width: int
    height: int
    media_type: str
    content: bytes = field(repr=False)
    model_version: str
    timings: Timings = field(repr=False)

    def save(self, path: Path | str) -> Path:
        """Write the picture to a file."""
        target = Path(path)
        target.write_bytes(self.content)
        return target
