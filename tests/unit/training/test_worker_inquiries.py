"""Questions that the worker answers without training a version."""

import json
from dataclasses import replace
from pathlib import Path

import obstore
import pytest
import torch
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from safetensors.torch import save_file

from enxerto.training.adapters.object_store import result_key, spec_key
from enxerto.training.domain import InquiryKind, JobTrained
from enxerto.training.worker.failures import last_word
from enxerto.training.worker.inquiries import answer
from enxerto.training.worker.order import JobOrder
from enxerto.vision.finetuning import Strategy
from enxerto.vision.torch.devices import DeviceFacts
from worker_orders import draw_classes, read_log, small_spec, write_order

pytestmark = pytest.mark.timeout(300)


async def told(order: JobOrder) -> dict[str, object]:
    """The stored answer, after its announcement in the log."""
    assert isinstance((await read_log(order))[-1].body, JobTrained)
    value = json.loads(bytes(obstore.get(order.store(), result_key(order.uid, order.attempt)).bytes()))
    assert isinstance(value, dict)
    return value


async def test_an_estimate_touches_no_checkpoint(tmp_path: Path) -> None:
    spec = small_spec(strategy=Strategy.FINE_TUNE, epochs=50)
    order = write_order(tmp_path, draw_classes(tmp_path / "data"), spec)
    order = replace(order, mode=InquiryKind.ESTIMATE)
    answer(order)
    value = await told(order)
    assert set(value) == {
        "duration_s", "epoch_duration_s", "images_per_second", "memory_bytes", "gpu_memory_bytes", "measured_steps",
        "device",
    }  # fmt: skip
    assert isinstance(value["duration_s"], float)
    assert value["duration_s"] > 0
    assert not obstore.list(order.store(), "runs/run1/checkpoints/").collect()


@pytest.mark.parametrize(
    ("machine", "use_gpu", "threads"),
    [({"CPU": 8.0}, False, 3), ({"CPU": 5.0}, False, 6), ({"CPU": 2.0}, False, 12), ({"CPU": 8.0, "GPU": 2}, True, 6)],
)
async def test_an_estimate_is_measured_with_the_cores_that_a_worker_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: dict[str, float], use_gpu: bool, threads: int
) -> None:
    monkeypatch.setattr("enxerto.training.worker.inquiries.detect", lambda gpus: DeviceFacts(0, False, 12))
    order = write_order(tmp_path, draw_classes(tmp_path / "data", each=3), small_spec(epochs=1), num_workers=4)
    answer(replace(order, mode=InquiryKind.ESTIMATE, cpus_per_worker=2.0, use_gpu=use_gpu), machine)
    assert (await told(order))["device"] == f"cpu, {threads} threads"


async def test_base_models_are_ranked_and_what_has_no_weights_is_skipped(tmp_path: Path) -> None:
    trained = write_order(tmp_path, draw_classes(tmp_path / "data", side=64), small_spec())
    manifest = json.loads(bytes(obstore.get(trained.store(), spec_key("run1")).bytes()))["manifest_sha256"]
    order = replace(trained, uid="recommend-1", mode=InquiryKind.RECOMMEND)
    names = ["efficientnet_lite0", "resnet18"]
    document = {"name": "x", "manifest_sha256": manifest, "base_models": names, "max_images": 24, "weights": {}}
    obstore.put(order.store(), spec_key(order.uid), json.dumps(document).encode())
    answer(order)
    value = await told(order)
    scores, skipped = value["scores"], value["skipped"]
    assert isinstance(scores, list)
    assert [one["base_model"] for one in scores] == ["efficientnet_lite0"]
    assert set(scores[0]) == {"base_model", "probe_accuracy", "knn_accuracy", "time_per_image_s", "parameter_count"}
    assert isinstance(skipped, dict)
    assert set(skipped) == {"resnet18"}


async def test_weights_of_another_network_are_refused_in_words(tmp_path: Path) -> None:
    trained = write_order(tmp_path, draw_classes(tmp_path / "data", each=4), small_spec())
    save_file({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    sha256 = trained.incoming().put(tmp_path / "w.safetensors")
    order = replace(trained, uid="weights-1", mode=InquiryKind.CHECK_WEIGHTS)
    document = {"name": "x", "base_model": "resnet18", "sha256": sha256}
    obstore.put(order.store(), spec_key(order.uid), json.dumps(document).encode())
    answer(order)
    status = Status.FromString(last_word(order))
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    # As for weights that the service refuses without a job.
    assert (status.code, info.reason) == (code_pb2.INVALID_ARGUMENT, "WEIGHTS_REFUSED")
    assert "conv1.weight" in str(status)
