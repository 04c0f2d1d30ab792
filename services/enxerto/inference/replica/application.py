"""The Serve application: one class between Serve's gRPC port and the predictor."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve

from enxerto.inference.adapters.model_cache import ENGINES
from enxerto.inference.adapters.model_files import fetch_model
from enxerto.inference.adapters.serve_cluster import ERROR_MARK
from enxerto.inference.replica.answering import Answering, OtherVersionError
from enxerto.inference.replica.predictor import Predictor
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import VersionName
from enxerto.runtime.allocator import keep_freed_memory
from enxerto.vision.images import ImageLimits
from enxerto.vision.onnx.session import CUDA

# The front limits how much is in flight; this only keeps Serve's default of 5 from being the limit.
_MAX_ONGOING = 64
_START_ATTEMPTS = 3
_HEALTH_PERIOD_S = 2.0
_DRAIN_S = 20.0


class HostArguments(BaseModel):
    """What every application is declared with."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    registry_address: str
    registry_certificates: str
    secret_file: Path
    cache_folder: Path
    threads: int
    cpus: float
    max_image_pixels: int
    max_image_bytes: int

    @property
    def image_limits(self) -> ImageLimits:
        """What an encoded image may cost."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels)

    def fetch(self, version: VersionName) -> Path:
        """The path of a version's ONNX file; see `fetch_model`."""
        certificates = Path(self.registry_certificates) if self.registry_certificates else None
        return fetch_model(version, self.registry_address, certificates, self.cache_folder)


class ReplicaArguments(HostArguments):
    """What the application of one version is declared with."""

    model_version: str
    device: str = "CPU"
    gpus: float = 0.0
    tensorrt: bool = False


class ReplicaStartError(RuntimeError):
    """A replica cannot serve its version; the front finds the text by its first words."""


class Replica(Answering):
    """enxerto.inference.v1.ReplicaService, as Serve calls it, for one version."""

    def __init__(self, arguments: ReplicaArguments) -> None:
        self._version = arguments.model_version
        keep_freed_memory()
        try:
            super().__init__(arguments.secret_file.read_text().strip(), _MAX_ONGOING)
            model = arguments.fetch(VersionName.parse(arguments.model_version))
            # Ray shows a replica the GPU that it reserves for it, and no other.
            device = "cuda" if arguments.device == "GPU" else "cpu"
            engines = model.with_suffix(ENGINES) if arguments.tensorrt else None
            self._predictor = Predictor(
                model, arguments.threads, arguments.image_limits, device=device, engines=engines
            )
            _check_device(arguments.device, self._predictor.providers)
        except (EnxertoError, OSError) as error:
            raise ReplicaStartError(f"{ERROR_MARK}{error}") from error

    def using(self, version: str) -> AbstractContextManager[Predictor]:
        """The predictor; see `Answering.using`."""
        if version != self._version:
            raise OtherVersionError(f"this replica serves {self._version}")
        return nullcontext(self._predictor)


def _check_device(device: str, providers: Sequence[str]) -> None:
    """ONNX Runtime falls back to the CPU without a word of it; a replica that was to have a GPU must not."""
    if device == "GPU" and CUDA not in providers:
        raise ReplicaStartError(f"{ERROR_MARK}the deployment wants a GPU, ONNX Runtime has only {', '.join(providers)}")


def bound(
    replica: type[Answering], arguments: HostArguments, *, max_ongoing: int, gpus: float = 0.0
) -> serve.Application:
    """The application of a kind of replica."""
    deployment = serve.deployment(
        name="replica",
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": gpus},
        max_ongoing_requests=max_ongoing,
        max_constructor_retry_count=_START_ATTEMPTS,
        health_check_period_s=_HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=_DRAIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        # Each batch is counted and timed by the front.
        logging_config={"enable_access_log": False},
    )(replica)
    application: serve.Application = deployment.bind(arguments)
    return application


def build(arguments: dict[str, Any]) -> serve.Application:
    """Make the application from its declaration; Serve calls this."""
    parsed = ReplicaArguments.model_validate(arguments)
    return bound(Replica, parsed, max_ongoing=_MAX_ONGOING, gpus=parsed.gpus)
