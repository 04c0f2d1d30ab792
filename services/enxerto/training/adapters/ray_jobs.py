"""Training jobs through Ray's Jobs REST API: a job outlives this service, and the service needs no Ray."""

import asyncio
import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from obstore.store import ObjectStore

from enxerto.kernel.errors import UnavailableError
from enxerto.runtime.ray_dashboard import RayDashboard, RayRefusedError
from enxerto.training.adapters import codec
from enxerto.training.adapters.object_store import put, spec_key, store_errors
from enxerto.training.domain import ClusterSize, Inquiry, Machine, SnapshotContent, TrainingRun
from enxerto.training.errors import JobRefusedError
from enxerto.training.ports import JobState

_MAX_MESSAGE = 300
_NOT_GROWING = ClusterSize(0.0, 0.0)
_STATES = {
    "PENDING": JobState.WAITING,
    "RUNNING": JobState.RUNNING,
    "SUCCEEDED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "STOPPED": JobState.STOPPED,
}


@dataclass(frozen=True, slots=True)
class WorkerLayout:
    """What a job is told about the cluster's machines."""

    python: str
    """The interpreter."""
    blob_url: str
    """The blob store as jobs reach it; credentials come from the cluster's own environment."""
    cache_folder: Path
    """Where snapshots are kept once fetched."""
    weights_folder: Path | None
    """Weights brought in by hand."""
    weights_download: bool = True
    """Whether weights may be downloaded."""
    worker_restarts: int = 2
    """How often a job replaces a worker that died."""
    cpus_per_worker: float = 1.0
    """What a job asks Ray for, for each worker and for whatever answers an inquiry."""


class RayJobRunner:
    """A `JobRunner` on one Ray cluster.

    Args:
        dashboard: of the cluster.
        store: where jobs find their spec.
        layout: what jobs are told.
        grows_to: what an autoscaling cluster has at its largest; 0 of either takes what it has now.
    """

    def __init__(
        self, dashboard: RayDashboard, store: ObjectStore, layout: WorkerLayout, grows_to: ClusterSize = _NOT_GROWING
    ) -> None:
        self._grows_to = grows_to
        self._dashboard = dashboard
        self._store = store
        self._layout = layout

    async def submit(
        self, run: TrainingRun, content: SnapshotContent, weights: Mapping[str, str], warnings: Sequence[str]
    ) -> None:
        """Start the run's current attempt."""
        spec = {
            "name": str(run.name),
            "spec": codec.spec_to_json(run.spec),
            "snapshot_digest": content.digest,
            "manifest_sha256": content.manifest_sha256,
            "weights": dict(weights),
            "warnings": list(warnings),
            # In the document: a worker of an earlier version passes over it, and would refuse an argument.
            "use_gpu": run.use_gpu,
        }
        await self._start(run.uid, run.attempt, "train", spec, run.name)

    async def ask(self, inquiry: Inquiry, attempt: int) -> None:
        """Start an attempt at an answer."""
        about = inquiry.document.get("name", inquiry.uid)
        await self._start(inquiry.uid, attempt, inquiry.kind.value, inquiry.document, about)

    async def _start(self, uid: str, attempt: int, mode: str, spec: Mapping[str, object], about: object) -> None:
        key = spec_key(uid)
        with store_errors(key):
            await asyncio.to_thread(put, self._store, key, json.dumps(spec).encode())
        layout = self._layout
        command = [layout.python, "-m", "enxerto.training.worker", "--mode", mode, "--blob-url", layout.blob_url]
        command += ["--uid", uid, "--attempt", str(attempt), "--cache-folder", str(layout.cache_folder)]
        command += ["--worker-restarts", str(layout.worker_restarts)]
        command += ["--cpus-per-worker", str(layout.cpus_per_worker)]
        if layout.weights_folder:
            command += ["--weights-folder", str(layout.weights_folder)]
        if not layout.weights_download:
            command += ["--no-weights-download"]
        body = {
            "submission_id": f"{uid}-{attempt}",
            "entrypoint": shlex.join(command),
            "metadata": {mode if mode != "train" else "training_run": str(about)},
        }
        try:
            await self._dashboard.call("POST", "/api/jobs/", body)
        except RayRefusedError as error:
            # Ray reports a duplicate as an internal error: the job of an earlier, interrupted submission is there.
            if "already exists" in error.text:
                return
            if error.status >= 500:
                raise UnavailableError(f"Ray cannot take the job now: {error.status}", retry_after_s=2.0) from error
            raise JobRefusedError(about, f"status {error.status}") from error

    async def size(self, own: Collection[str]) -> ClusterSize:
        """What the cluster has in all, or may grow to where the operator says so, and what others hold of it."""
        try:
            held = await self._dashboard.reserved(apart_from=own)
            machines = await self._dashboard.machines()
        except RayRefusedError as error:
            raise UnavailableError(f"Ray does not tell its size: {error.status}", retry_after_s=2.0) from error
        found = tuple(Machine(one.get("CPU", 0.0), one.get("GPU", 0.0)) for one in machines)
        return ClusterSize(
            cpus=self._grows_to.cpus or sum(one.cpus for one in found),
            gpus=self._grows_to.gpus or sum(one.gpus for one in found),
            other_cpus=held.get("CPU", 0.0),
            other_gpus=held.get("GPU", 0.0),
            machines=found if self._grows_to == _NOT_GROWING else (),
        )

    async def state(self, job_id: str) -> tuple[JobState, str]:
        """What the job does, and the cluster's message."""
        try:
            answer = await self._dashboard.call("GET", f"/api/jobs/{quote(job_id)}")
        except RayRefusedError as error:
            if error.status == 404:
                return JobState.UNKNOWN, "the cluster does not know the job"
            raise
        # What follows the first line is the end of the job's log, which is not for clients.
        message = str(answer.get("message") or "").partition("\n")[0].partition(", last available logs")[0]
        return _STATES[answer["status"]], message[:_MAX_MESSAGE]

    async def stop(self, job_id: str) -> None:
        """Ask the job to end; Ray sends the signal that RAY_JOB_STOP_SIGNAL names."""
        try:
            await self._dashboard.call("POST", f"/api/jobs/{quote(job_id)}/stop")
        except RayRefusedError as error:
            if error.status != 404:
                raise
