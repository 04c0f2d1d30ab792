"""What a job leaves behind for registration."""

from dataclasses import dataclass

from enxerto.training.domain.events import Metric
from enxerto.vision.specs import LabelMap, PreprocessSpec, TensorSpec


@dataclass(frozen=True, slots=True)
class ResultArtifact:
    """One stored file."""

    filename: str
    role: str
    """`MODEL`, `REPORT` or `OTHER`."""
    sha256: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of the exported graph with the trained network."""

    max_abs_difference: float
    agreement: float
    sample_count: int
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the version came from, as far as the job knows."""

    snapshot_digest: str
    weights_digest: str
    weights_source: str
    licence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """Everything that a version is registered with, and what a run leaves besides."""

    artifacts: tuple[ResultArtifact, ...]
    """Of the version; without any, no version is registered."""
    label_map: LabelMap
    preprocess: PreprocessSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metrics: tuple[Metric, ...]
    parity: Parity | None
    """None without a version."""
    lineage: Lineage
    stop_reason: str
    """`EPOCHS`, `EARLY_STOPPING`, `MAX_DURATION` or `TARGET_SCORE`."""
    files: tuple[ResultArtifact, ...] = ()
    """What the run leaves besides its version, such as pictures."""
