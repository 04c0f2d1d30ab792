"""What a job is asked to do."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import obstore
from obstore.store import ObjectStore

from enxerto.kernel.errors import DataLossError
from enxerto.training.adapters import codec
from enxerto.training.adapters.object_store import StoredBlobs, incoming_key, open_store, spec_key, store_errors
from enxerto.training.domain import RunSpec
from enxerto.vision.images import ImageLimits

# The import held every image to the operator's limits; what a snapshot holds can be trained on.
IMPORTED = ImageLimits(size_bytes=sys.maxsize, pixels=sys.maxsize)

TRAIN = "train"


@dataclass(frozen=True, slots=True)
class JobOrder:
    """Where a job finds its spec and leaves its output. Travels to every worker."""

    blob_url: str
    uid: str
    attempt: int
    cache_folder: Path
    weights_folder: Path | None
    weights_download: bool = True
    mode: str = TRAIN
    """`train`, or a value of `InquiryKind`."""
    worker_restarts: int = 2
    """How often a worker that died is replaced; a job that ends for good says why."""
    cpus_per_worker: float = 1.0
    """What Ray reserves; the queue counts with the same."""
    use_gpu: bool | None = None
    """Whether each worker has a GPU, as the service has decided; None while it has not been read, or was not said."""

    def store(self) -> ObjectStore:
        """The blob store."""
        return open_store(self.blob_url)

    def blobs(self) -> StoredBlobs:
        """Content-addressed blobs, with this machine's cache."""
        return StoredBlobs(self.store(), self.cache_folder / "blobs")

    def incoming(self) -> StoredBlobs:
        """Weights that wait to be accepted."""
        return StoredBlobs(self.store(), self.cache_folder / "blobs", incoming_key)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The run as the service wrote it down."""

    name: str
    run: RunSpec
    snapshot_digest: str
    manifest_sha256: str
    weights: Mapping[str, str] = field(default_factory=dict)
    """sha256 of weights that were imported by hand, by base model."""
    warnings: tuple[str, ...] = ()
    """What the import found."""


def read_document(order: JobOrder) -> Mapping[str, Any]:
    """What the service wrote down for the job, as JSON values."""
    key = spec_key(order.uid)
    with store_errors(key):
        data = bytes(obstore.get(order.store(), key).bytes())
    try:
        value: Mapping[str, Any] = json.loads(data)
    except ValueError as error:
        raise DataLossError(f"the order {key} cannot be read: {error}") from error
    return value


def with_device(order: JobOrder, cluster_gpus: float) -> JobOrder:
    """The order with what it computes on: what the service has decided.

    Args:
        order: of the job.
        cluster_gpus: that there are now; they decide where a service of an earlier version has not.
    """
    document = read_document(order)
    use_gpu = document.get("use_gpu")
    if use_gpu is None:
        workers = codec.spec_from_json(document["spec"]).num_workers if order.mode == TRAIN else 1
        use_gpu = cluster_gpus >= workers
    return replace(order, use_gpu=use_gpu)


def read_spec(order: JobOrder) -> JobSpec:
    """The spec of the order's run."""
    value = read_document(order)
    return JobSpec(
        value["name"],
        codec.spec_from_json(value["spec"]),
        value["snapshot_digest"],
        value["manifest_sha256"],
        value.get("weights", {}),
        tuple(value.get("warnings", ())),
    )
