"""What a job is asked to do."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import ObjectStore

from enxerto.training.adapters import codec
from enxerto.training.adapters.object_store import StoredBlobs, open_store, spec_key, store_errors
from enxerto.training.domain import RunSpec
from enxerto.vision.images import ImageLimits

# The import held every image to the operator's limits; what a snapshot holds can be trained on.
IMPORTED = ImageLimits(size_bytes=sys.maxsize, pixels=sys.maxsize)


@dataclass(frozen=True, slots=True)
class JobOrder:
    """Where a job finds its spec and leaves its output. Travels to every worker."""

    blob_url: str
    uid: str
    attempt: int
    cache_folder: Path
    weights_folder: Path | None
    weights_download: bool = True

    def store(self) -> ObjectStore:
        """The blob store."""
        return open_store(self.blob_url)

    def blobs(self) -> StoredBlobs:
        """Content-addressed blobs, with this machine's cache."""
        return StoredBlobs(self.store(), self.cache_folder / "blobs")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The run as the service wrote it down."""

    name: str
    run: RunSpec
    snapshot_digest: str
    manifest_sha256: str


def read_spec(order: JobOrder) -> JobSpec:
    """Load the spec of the order's run."""
    key = spec_key(order.uid)
    with store_errors(key):
        value = json.loads(bytes(obstore.get(order.store(), key).bytes()))
    return JobSpec(
        value["name"], codec.spec_from_json(value["spec"]), value["snapshot_digest"], value["manifest_sha256"]
    )
