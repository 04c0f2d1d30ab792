"""Runs of every task on a GPU, in every precision: what they leave, and that its graph answers there as on a CPU."""

from dataclasses import replace
from pathlib import Path

import obstore
import onnxruntime as ort
import pytest
import torch

from enxerto.training.adapters.object_store import blob_key
from enxerto.training.domain import JobTrained, TrainingResult
from enxerto.training.worker.order import JobOrder
from enxerto.training.worker.training import train
from enxerto.vision.contracts import INPUT_NAME, MIN_AGREEMENT, Outputs
from enxerto.vision.finetuning import Precision, Strategy, StyleSpec, UnfreezingSpec, Weights
from enxerto.vision.images import Float32Images
from enxerto.vision.onnx.golden import GOLDEN_FILE, read_golden
from enxerto.vision.onnx.parity import compare
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.specs import Task
from enxerto.vision.torch.collectives import Distribution
from fakes.dataset_folders import write_folder
from worker_orders import read_log, read_result, small_spec, write_order

pytestmark = pytest.mark.timeout(300)

RUNS = {
    "features": small_spec(epochs=4),
    "all-stages": small_spec(strategy=Strategy.FINE_TUNE, unfreezing=UnfreezingSpec(stages=0), ema_decay=0.9),
    "ssdlite": small_spec(Task.DETECTION, base_model="ssdlite", image_size=96, epochs=1),
    "fasterrcnn": small_spec(Task.DETECTION, base_model="fasterrcnn", image_size=96, epochs=1),
    "yolox": small_spec(Task.DETECTION, base_model="yolox_nano", image_size=96, epochs=1, weights=Weights.NONE),
    "yolov9": small_spec(Task.DETECTION, base_model="yolov9_t", image_size=96, epochs=1, weights=Weights.NONE),
    "yolov8": small_spec(Task.DETECTION, base_model="yolov8n", image_size=96, epochs=1, weights=Weights.NONE),
    "unet": small_spec(Task.SEGMENTATION, base_model="unet", image_size=64, epochs=2),
    "deeplabv3": small_spec(Task.SEGMENTATION, base_model="deeplabv3", image_size=64, epochs=1),
    "fast-style": small_spec(Task.STYLE, base_model="fast_style", image_size=64, epochs=2),
}


def stored(order: JobOrder, result: TrainingResult, filename: str) -> bytes:
    """One artifact of a run."""
    (found,) = [one for one in (*result.artifacts, *result.files) if one.filename == filename]
    return bytes(obstore.get(order.store(), blob_key(found.sha256)).bytes())


@pytest.mark.parametrize("precision", [Precision.AUTO, Precision.FP16, Precision.FP32])
@pytest.mark.parametrize("name", RUNS)
async def test_a_run_on_a_gpu_leaves_a_graph_that_answers_as_on_a_cpu(
    tmp_path: Path, name: str, precision: Precision
) -> None:
    spec = replace(RUNS[name], precision=precision)
    write_folder(spec.task, tmp_path / "data")
    order = write_order(tmp_path, tmp_path / "data", spec)
    torch.cuda.reset_peak_memory_stats()
    train(order, Distribution())
    log = [entry.body for entry in await read_log(order)]
    assert isinstance(log[-1], JobTrained), log[-1]
    assert torch.cuda.max_memory_allocated() > 2**20
    result = await read_result(order)
    assert torch.cuda.get_device_name() in stored(order, result, "report.html").decode()
    assert result.parity is not None
    assert result.parity.agreement >= MIN_AGREEMENT[spec.task]
    model = OnnxModel(stored(order, result, "model.onnx"), device="cuda")
    assert not model.on_cpu
    golden = read_golden(stored(order, result, GOLDEN_FILE), spec.task)
    on_cpu = ort.InferenceSession(stored(order, result, "model.onnx"), providers=["CPUExecutionProvider"])
    names = [one.name for one in on_cpu.get_outputs()]

    def answers_of_the_cpu(images: Float32Images) -> Outputs:
        return dict(zip(names, on_cpu.run(names, {INPUT_NAME: images}), strict=True))

    sizes = [len(golden.images)]
    same = compare(spec.task, answers_of_the_cpu, lambda images: model.run(images, names), golden.images, sizes)
    print(f"{name} {precision}: agreement {same.agreement:.4f}, largest difference {same.max_abs_difference:.2g}")
    assert same.agreement >= MIN_AGREEMENT[spec.task]
    assert golden.agreement(model.run(golden.images)) >= golden.least


async def test_pictures_are_painted_on_a_gpu(tmp_path: Path) -> None:
    spec = small_spec(Task.STYLE, base_model="gatys", image_size=64, style=StyleSpec(steps=10))
    write_folder(Task.STYLE, tmp_path / "data")
    order = write_order(tmp_path, tmp_path / "data", spec)
    torch.cuda.reset_peak_memory_stats()
    train(order, Distribution())
    assert torch.cuda.max_memory_allocated() > 2**20
    assert [one for one in (await read_result(order)).files if one.media_type == "image/png"]
