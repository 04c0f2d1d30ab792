"""Settings of the inference service, from ENXERTO_INFERENCE_* variables."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from enxerto.runtime.settings import ServerSettings


class InferenceSettings(ServerSettings):
    """Where the service finds its neighbours, and its limits."""

    model_config = SettingsConfigDict(
        env_prefix="ENXERTO_INFERENCE_", frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )

    home: Path = Field(default=Path("~/.enxerto"), validation_alias="ENXERTO_HOME")
    """Folder of everything embedded; `ENXERTO_HOME`."""
    database_url: str = ""
    """`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…` (`?sslmode=verify-full` encrypts); empty keeps a SQLite file
    under `home`."""
    registry_address: str = "127.0.0.1:7301"
    """`host:port` of the registry; replicas use it too."""
    registry_certificates: Path | None = None
    """PEM authorities of the registry's certificate; when set, it is called over TLS. Replicas read the same path."""
    ray_dashboard_url: str = "http://127.0.0.1:7321"
    """Ray's REST API."""
    ray_token_file: Path | None = None
    """Token for Ray's REST API."""
    replica_secret_file: Path
    """Secret between front and replicas, at least 32 characters; replicas read the same path."""
    replica_path: Literal["direct", "proxy"] = "direct"
    """`direct` calls each replica's own port, for which Ray runs with RAY_SERVE_ENABLE_DIRECT_INGRESS=1, or its socket
    on the same machine; `proxy` goes through Serve's proxy, at about four times the cost of a call."""
    replica_memory_bytes: int = Field(default=256 * 2**20, ge=0)
    """Tensors in memory that replicas on the same machine read, at most; 0 treats those replicas as ones elsewhere:
    tensors are sent, and their sockets are not used."""
    serve_http_port: int = Field(default=7322, ge=1, le=65535)
    """Loopback port of Serve's own proxy, which Serve opens whether it is used or not."""
    serve_grpc_port: int = Field(default=7323, ge=1, le=65535)
    """gRPC port of Serve's own proxy; what it passes on needs the secret as well."""
    model_cache_folder: Path | None = None
    """Where replicas keep fetched models; empty keeps them under `home`."""
    replica_cpus: float = Field(default=0.1, gt=0)
    """CPUs that Ray reserves for a replica. Small by default: the next version starts beside the one that serves. As
    many as `replica_threads` keep the threads of a machine's replicas within its cores."""
    replica_gpus: float = Field(default=1.0, gt=0)
    """GPUs that Ray reserves for a replica of a deployment on GPUs; below 1, several replicas share one."""
    replica_tensorrt: bool = False
    """Whether TensorRT computes on GPUs what is float32 and of one size. Its libraries, those of version 10, have to be
    there, else no replica on a GPU starts. An engine is built at a version's first start, for which `bring_up_s` has to
    be long enough, and kept beside the fetched model."""
    replica_threads: int = Field(default=2, ge=1, le=256)
    """Threads of ONNX Runtime in a replica, and as many for decoding. Times the replicas that are busy at once, they
    should not exceed a machine's cores."""
    pool_replicas: int = Field(default=1, ge=1, le=64)
    """Shared replicas, which answer for all SHARED deployments; while there is no such deployment there are none."""
    pool_memory_bytes: int = Field(default=2 * 2**30, ge=1)
    """Bytes that the models in each shared replica may take, as measured when each is loaded. The process itself and
    what one batch takes while it is computed come on top."""
    pool_wait_s: float = Field(default=10.0, gt=0)
    """How long a call may wait in a shared replica for its model, in seconds; then it is RESOURCE_EXHAUSTED."""
    pool_max_waiting: int = Field(default=64, ge=1)
    """Calls that may wait so in each shared replica; more are RESOURCE_EXHAUSTED at once."""
    alias_poll_s: float = Field(default=1.0, gt=0)
    """How often aliases are followed, in seconds."""
    replica_poll_s: float = Field(default=5.0, gt=0)
    """How often replicas are looked up while nothing changes and no call to one fails, in seconds."""
    bring_up_s: float = Field(default=300.0, gt=0)
    """A version that does not answer after so many seconds has failed."""
    shadow_report_s: float = Field(default=5.0, ge=0)
    """How often a deployment shows what comparing its shadow has found, in seconds."""
    batch_max_size: int = Field(default=32, ge=1, le=4096)
    """Images in one call to a replica."""
    batch_max_bytes: int = Field(default=64 * 2**20, ge=2**20, le=192 * 2**20)
    """Bytes in one call to a replica."""
    batch_max_delay_s: float = Field(default=0.001, ge=0, le=1)
    """How long a request may wait for company while another call is in flight, in seconds."""
    batch_concurrency: int = Field(default=2, ge=1, le=64)
    """Calls in flight for each replica."""
    queue_max_items: int = Field(default=1024, ge=1)
    """Images that may wait for one version of a deployment; more are RESOURCE_EXHAUSTED."""
    queue_max_bytes: int = Field(default=512 * 2**20, ge=2**20)
    """Bytes that may wait for one version of a deployment; more are RESOURCE_EXHAUSTED."""
    response_cache_max_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """Bytes of answers that the response caches of all deployments keep together; the largest one makes room."""
    project_images_per_s: float = Field(default=0, ge=0)
    """Images a second that the callers of one project may send to each process of the service; more are
    RESOURCE_EXHAUSTED, 0 is no limit."""
    project_burst_images: int = Field(default=256, ge=1)
    """Images that a project may send at once after a pause."""
    request_timeout_s: float = Field(default=30.0, gt=0)
    """How long a request may take whose caller sets no deadline, in seconds; likewise each request of a stream, whose
    deadline is that of all of them."""
    max_items: int = Field(default=64, ge=1, le=4096)
    """Images in one request."""
    stream_max_in_flight: int = Field(default=16, ge=1, le=1024)
    """Requests of one `PredictStream` that are worked on at once; more are read when answers were taken."""
    max_image_bytes: int = Field(default=24 * 2**20, ge=1)
    """Bytes of one encoded image."""
    max_image_pixels: int = Field(default=50_000_000, ge=1)
    """Width times height that an image's header may declare."""

    shared_memory: bool = False
    """Whether callers on this machine may name POSIX shared memory for their tensors, which the service then reads and
    writes with its own rights."""
    observed_images_per_s: float = Field(default=20.0, ge=0)
    """Images whose answers are looked at for classes, confidence and drift, a second and version; 0 looks at none."""
    drift_threshold: float = Field(default=0.2, gt=0)
    """By how much the drift of embeddings may exceed that of held-out images before a version counts as drifted."""
    samples_url: str = ""
    """Where images for labelling are kept: `s3://bucket/prefix` and the like; empty keeps them under `home`."""
    feedback_days: int = Field(default=365, ge=1)
    """Feedback about older answers is removed."""

    @property
    def effective_samples_folder(self) -> Path:
        """Where images for labelling are kept without a URL."""
        return self.home.expanduser() / "inference" / "samples"

    @property
    def max_content_bytes(self) -> int:
        """Bytes of the tensors of one request, and of the answers to it: a message, less what is around them."""
        return self.max_message_bytes * 15 // 16

    @property
    def effective_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite+aiosqlite:///{self.home.expanduser()}/inference/inference.db"

    @property
    def effective_model_cache_folder(self) -> Path:
        """Where replicas keep fetched models."""
        return self.model_cache_folder or self.home.expanduser() / "inference" / "models"
