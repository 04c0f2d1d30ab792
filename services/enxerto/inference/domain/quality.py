"""How well deployments answer: what was observed, what callers say, and what is kept for labelling."""

import base64
import binascii
import enum
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from enxerto.kernel.names import DeploymentName, SampleName, VersionName

MAX_SAMPLES = 10_000
MAX_SAMPLES_BYTES = 10 * 2**30
DEFAULT_SAMPLES_BYTES = 256 * 2**20
CONFIDENCE_BINS = 10

_HEAD = struct.Struct("<B8sQH")
_FORMAT = 1
_CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True)
class PredictionId:
    """Which answer feedback is about, and what it said: nothing has to be kept for answers that nobody comes back to.

    A checksum over it and the deployment's name finds typing errors. It is no signature: whoever may send feedback can
    say what they like by its label already.
    """

    version: VersionName
    identity: str
    """Sixteen hexadecimal digits."""
    time: datetime
    """When the answer was given, to the millisecond."""
    classes: tuple[int, ...]
    """The most likely class of each image."""

    def encode(self, deployment: DeploymentName) -> str:
        """As callers see it."""
        milliseconds = round(self.time.timestamp() * 1000)
        head = _HEAD.pack(_FORMAT, bytes.fromhex(self.identity), milliseconds, len(self.classes))
        body = head + struct.pack(f"<{len(self.classes)}I", *self.classes) + str(self.version).encode()
        return base64.urlsafe_b64encode(body + _checksum(body, deployment)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, deployment: DeploymentName) -> Self | None:
        """The reverse of `encode`; None when this deployment gave no such id."""
        try:
            content = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        if len(body) < _HEAD.size or checksum != _checksum(body, deployment):
            return None
        kind, identity, milliseconds, count = _HEAD.unpack_from(body)
        end = _HEAD.size + 4 * count
        if kind != _FORMAT or len(body) < end:
            return None
        try:
            version = VersionName.try_parse(body[end:].decode())
            time = datetime.fromtimestamp(milliseconds / 1000, UTC)
        except (UnicodeDecodeError, OverflowError, ValueError, OSError):
            return None
        classes = struct.unpack_from(f"<{count}I", body, _HEAD.size)
        return cls(version, identity.hex(), time, classes) if version else None


def _checksum(body: bytes, deployment: DeploymentName) -> bytes:
    return zlib.crc32(body, zlib.crc32(str(deployment).encode())).to_bytes(_CHECKSUM_BYTES, "little")


@dataclass(frozen=True, slots=True)
class Feedback:
    """The true label of one image, as a caller gives it."""

    prediction_id: str
    index: int
    """Of the image in its request."""
    label: str


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """The true label of one image, beside the answer."""

    deployment: DeploymentName
    identity: str
    index: int
    version: VersionName
    predicted_label: str
    label: str
    known: bool
    """Whether the version has such a class."""
    time: datetime
    """Of the answer."""

    @property
    def correct(self) -> bool:
        """Whether the answer was right."""
        return self.label == self.predicted_label


@dataclass(frozen=True, slots=True)
class LiveAccuracy:
    """How often a version was right."""

    version: VersionName
    feedback: int
    correct: int
    unknown_labels: int


@dataclass(frozen=True, slots=True)
class VersionQuality:
    """What was observed of one version."""

    version: VersionName
    images: int
    class_shares: Sequence[tuple[str, int, float]]
    """Label, index and share, the largest first; those that occurred."""
    confidence_shares: Sequence[float]
    drift: float | None
    held_out_drift: float | None
    drifted: bool


@dataclass(frozen=True, slots=True)
class DeploymentQuality:
    """How well a deployment answers."""

    deployment: DeploymentName
    versions: Sequence[VersionQuality]
    accuracies: Sequence[LiveAccuracy]
    samples: int
    samples_bytes: int


@dataclass(frozen=True, slots=True)
class SamplingPolicy:
    """Which images of a deployment are kept for labelling."""

    deployment: DeploymentName
    max_samples: int = 0
    """0 keeps none."""
    max_bytes: int = DEFAULT_SAMPLES_BYTES
    uncertain_below: float = 0.0
    """Keeps images whose confidence is below this."""
    drifted_beyond: float = 0.0
    """Keeps images whose embedding is farther from the reference; 0 keeps none for that reason."""
    update_time: datetime | None = None


class SampleReason(enum.StrEnum):
    """Why an image was kept."""

    UNCERTAIN = "UNCERTAIN"
    DRIFTED = "DRIFTED"


@dataclass(frozen=True, slots=True)
class Sample:
    """An image that was kept for labelling."""

    name: SampleName
    reason: SampleReason
    version: VersionName
    predicted_label: str
    confidence: float
    distance: float | None
    """See `EmbeddingReference.distances`."""
    identity: str
    """Of the answer."""
    index: int
    """Of the image in its request."""
    size_bytes: int
    sha256: str
    create_time: datetime
    true_label: str = ""
    """What feedback said."""


@dataclass(frozen=True, slots=True)
class SamplesUsage:
    """What the samples of a deployment take."""

    count: int
    size_bytes: int
