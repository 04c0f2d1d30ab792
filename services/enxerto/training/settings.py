"""Settings of the training service, from `ENXERTO_TRAINING_*` variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from enxerto.runtime.settings import ServerSettings


class TrainingSettings(ServerSettings):
    """Everything that the training service is told from outside. Object stores read the usual `AWS_*` variables."""

    model_config = SettingsConfigDict(env_prefix="ENXERTO_TRAINING_", frozen=True, extra="forbid")

    database_url: str
    """`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…` (`?sslmode=verify-full` encrypts)."""
    blob_url: str
    """Where uploads, snapshots, and what jobs write are kept: `file:///…` or `s3://bucket/prefix`; jobs use it too."""
    registry_address: str
    """`host:port` of the registry."""
    registry_ca: Path | None = None
    """PEM authorities of the registry's certificate; without it the connection is in the clear."""
    ray_dashboard_url: str
    """Ray's dashboard, such as `http://127.0.0.1:8265`."""
    ray_token_file: Path | None = None
    """File with Ray's token."""
    worker_python: str = "python"
    """Interpreter of jobs, as the cluster's machines know it."""
    import_roots: tuple[Path, ...] = ()
    """Folders from which `path` sources may be imported; none by default."""
    import_locations: tuple[str, ...] = ()
    """Locations from which `uri` sources may be imported, such as `s3://bucket/prefix`; none by default."""
    cache_folder: Path
    """Scratch space of this service for archives being received or unpacked."""
    worker_cache_folder: Path | None = None
    """Where jobs keep what they have fetched, as the cluster's machines know it; below `cache_folder` by default."""
    weights_folder: Path | None = None
    """Folder with weights that were brought in by hand, as the cluster's machines know it."""
    weights_download: bool = True
    """Whether jobs may download weights that they find nowhere else."""
    worker_restarts: int = Field(default=2, ge=0)
    """How often a job replaces a worker that died before the attempt is lost; the run goes on from its checkpoint."""
    max_archive_bytes: int = Field(default=8 * 2**30, ge=1)
    """Largest archive accepted."""
    max_unpacked_bytes: int = Field(default=32 * 2**30, ge=1)
    """Most bytes that an archive may unpack to."""
    max_archive_members: int = Field(default=2_000_000, ge=1)
    """Most members that an archive may have."""
    max_image_bytes: int = Field(default=64 * 2**20, ge=1)
    """Largest image file accepted."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Most pixels that an image may declare."""
    concurrent_imports: int = Field(default=1, ge=1)
    """Imports that run at the same time; the others wait."""
    max_running_runs_per_project: int = Field(default=0, ge=0)
    """Runs of one project that may train at the same time; the others wait in the queue. 0 is no limit."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for a worker; what the queue counts with."""
    cluster_max_cpus: float = Field(default=0.0, ge=0)
    """CPUs that an autoscaling cluster may grow to; 0 takes the size that it has."""
    cluster_max_gpus: float = Field(default=0.0, ge=0)
    """GPUs that an autoscaling cluster may grow to; 0 takes those that it has."""
    max_weights_bytes: int = Field(default=8 * 2**30, ge=1)
    """Largest file of weights that may be imported."""
    leftovers_keep_s: float = Field(default=7 * 86_400.0, ge=86_400)
    """How long uploads that no import waits for, refused weights, halves that a killed process left, and logs of
    ended jobs are kept."""
    reconcile_interval_s: float = Field(default=0.5, gt=0)
    """How often jobs' logs are read while runs are active."""
