"""Orders for the training worker without a service: a blob store in a folder, a snapshot, and a spec."""

import json
from pathlib import Path

import numpy as np
import obstore
from PIL import Image

from enxerto.kernel.names import BaseModelName, ModelName, SnapshotName
from enxerto.training.adapters import codec
from enxerto.training.adapters.event_log import ObjectJobOutput
from enxerto.training.adapters.object_store import spec_key
from enxerto.training.domain import JobEvent, RunSpec, TrainingResult
from enxerto.training.worker.order import JobOrder
from enxerto.vision.datasets.scanning import scan
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.snapshots import write_snapshot
from enxerto.vision.specs import Task

CLASSES = ("dots", "plain", "stripes")


def draw_classes(folder: Path, each: int = 8, side: int = 48) -> Path:
    """An ImageFolder of three textures that any network tells apart."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            picture = rng.integers(60, 200, (side, side, 3))
            if label == 0:
                picture[:: 6 + number % 3, ::6] = 255
            if label == 2:
                picture[:, :: 4 + number % 4] = 0
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def write_order(
    root: Path, data: Path, finetune: FinetuneSpec, *, uid: str = "run1", attempt: int = 1, num_workers: int = 1
) -> JobOrder:
    """Store a data set and a spec under `root`, and return the order for its run."""
    store = root / "store"
    store.mkdir(parents=True, exist_ok=True)
    order = JobOrder(store.as_uri(), uid, attempt, root / "cache", None, weights_download=False)
    manifest, sha256 = write_snapshot(scan(data, finetune.task), order.blobs())
    run = RunSpec(
        snapshot=SnapshotName.parse("projects/default/datasets/textures/snapshots/1"),
        base_model=BaseModelName.parse(f"baseModels/{finetune.base_model.replace('_', '-')}"),
        model=ModelName.parse("projects/default/models/textures"),
        finetune=finetune,
        num_workers=num_workers,
    )
    document = {
        "name": f"projects/default/trainingRuns/{uid}",
        "spec": codec.spec_to_json(run),
        "snapshot_digest": manifest.digest,
        "manifest_sha256": sha256,
        "warnings": ["2 pictures are alike"],
    }
    obstore.put(order.store(), spec_key(uid), json.dumps(document).encode())
    return order


async def read_log(order: JobOrder) -> list[JobEvent]:
    """Everything that the attempt has written."""
    return list(await ObjectJobOutput(order.store()).read_events(order.uid, order.attempt, 0))


async def read_result(order: JobOrder) -> TrainingResult:
    """What the attempt left."""
    return await ObjectJobOutput(order.store()).read_result(order.uid, order.attempt)


def small_spec(task: Task = Task.CLASSIFICATION, **changes: object) -> FinetuneSpec:
    """A spec that trains in seconds."""
    values: dict[str, object] = {"image_size": 32, "epochs": 3, "batch_size": 8, **changes}
    return FinetuneSpec.with_defaults(task=task, **values)  # type: ignore[arg-type]
