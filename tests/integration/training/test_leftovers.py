"""What nobody refers to any more is cleared away, and what somebody does stays, through the front door."""

import hashlib
import io
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from enxerto.training.v1 import dataset_pb2, dataset_service_pb2, training_service_pb2
from enxerto.type.v1 import task_pb2
from training_calls import (
    create_dataset,
    imported,
    packaged_weights,
    refusal,
    start_import,
    upload,
    weights_messages,
)
from training_stack import Stack, eventually, running_stack

NAME = "baseModels/efficientnet-lite0"
PICKLE = b"\x80\x04cposix\nsystem\n." * 10


def archive() -> bytes:
    """Two classes of six pictures of noise."""
    generator, buffer = np.random.default_rng(7), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for number in range(12):
            picture = io.BytesIO()
            Image.fromarray(generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(picture, "PNG")
            bundle.writestr(f"class_{number % 2}/{number}.png", picture.getvalue())
    return buffer.getvalue()


def age(folder: Path) -> None:
    """Make everything in a folder two weeks old."""
    then = time.time() - 14 * 86_400
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(None, tmp_path / "stack") as running:
        yield running


def test_old_leftovers_are_cleared_and_what_is_used_stays(stack: Stack) -> None:
    content, weights = archive(), packaged_weights()
    objects, scratch = stack.folder / "objects", stack.folder / "cache" / "scratch"
    with stack.stubs() as (datasets, training):
        dataset = create_dataset(datasets, "kept", task_pb2.TASK_CLASSIFICATION)
        old = upload(datasets, content)
        snapshot = imported(datasets, start_import(datasets, dataset, upload=old).name)
        assert snapshot.state == dataset_pb2.Snapshot.STATE_READY, snapshot.error
        accepted = training.ImportBaseModelWeights(weights_messages(weights, NAME)).imported_weights
        assert refusal(training.ImportBaseModelWeights, weights_messages(PICKLE, NAME)).reason == "WEIGHTS_REFUSED"
    refused = objects / "incoming" / hashlib.sha256(PICKLE).hexdigest()
    assert refused.exists()
    stack.training.kill()
    (scratch / "upload-half").mkdir()
    (scratch / "upload-half" / "archive").write_bytes(b"the first part")
    age(objects)
    age(scratch)
    (scratch / "weights-now").mkdir()
    (scratch / "weights-now" / "weights").write_bytes(b"the first part")
    stack.training.start()
    uploads, received = objects / "uploads" / "default", objects / "incoming"
    eventually(lambda: True if not [*uploads.iterdir(), *received.iterdir()] else None)
    eventually(lambda: None if (scratch / "upload-half").exists() else True)
    assert [path.name for path in scratch.iterdir()] == ["weights-now"]
    with stack.stubs() as (datasets, training):
        request = training_service_pb2.GetBaseModelRequest(name=NAME)
        assert training.GetBaseModel(request).imported_weights == accepted
        assert (objects / "blobs" / accepted).read_bytes() == weights
        assert refusal(start_import, datasets, dataset, upload=old).code is grpc.StatusCode.NOT_FOUND
        request = dataset_service_pb2.GetSnapshotRequest(name=snapshot.name)
        assert datasets.GetSnapshot(request).state == dataset_pb2.Snapshot.STATE_READY
        again = imported(datasets, start_import(datasets, dataset, upload=upload(datasets, content)).name)
        assert (again.state, again.digest) == (dataset_pb2.Snapshot.STATE_READY, snapshot.digest)
