"""FINE_TUNE of one base model of each kind of network, from a data set to its graph."""

import importlib.util
from pathlib import Path

import pytest

from enxerto.training.domain import TUNING, EpochCompleted, JobTrained
from enxerto.training.worker.training import train
from enxerto.vision.catalogue import get_facts
from enxerto.vision.contracts import MIN_AGREEMENT
from enxerto.vision.finetuning import Strategy, UnfreezingSpec, Weights
from enxerto.vision.specs import Task
from enxerto.vision.torch.collectives import Distribution
from fakes.dataset_folders import write_folder
from worker_orders import read_log, read_result, small_spec, write_order

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ALL = UnfreezingSpec()
LAST_TWO = UnfreezingSpec(stages=2)
GRADUAL = UnfreezingSpec(stages=3, epochs_per_stage=1, head_warmup_epochs=1)
"""From the second epoch on, one stage more in each."""

FAMILIES = {
    "efficientnet_lite0": GRADUAL,
    "resnet18": LAST_TWO,
    "vgg11_bn": LAST_TWO,
    "convnext_tiny": GRADUAL,
    "vit_b_32": LAST_TWO,
    "timm_resnet10t": ALL,
    "yolov8n": ALL,
    "yolov9_t": GRADUAL,
    "yolox_nano": LAST_TWO,
    "fasterrcnn_mobilenet_v3_large_320_fpn": ALL,
    "retinanet": GRADUAL,
    "ssdlite320_mobilenet_v3_large": ALL,
    "unet": ALL,
    "deeplabv3plus": LAST_TWO,
    "deeplabv3_resnet50": LAST_TWO,
    "fcn": GRADUAL,
    "lraspp_mobilenet_v3_large": ALL,
}
SIDES = {Task.CLASSIFICATION: 32, Task.DETECTION: 96, Task.SEGMENTATION: 64}


@pytest.mark.parametrize(("base_model", "unfreezing"), FAMILIES.items(), ids=list(FAMILIES))
async def test_a_run_that_tunes_ends_in_a_graph_that_answers_alike(
    tmp_path: Path, base_model: str, unfreezing: UnfreezingSpec
) -> None:
    facts = get_facts(base_model)
    if facts.required_extra and importlib.util.find_spec(facts.required_extra) is None:
        pytest.skip(f"needs the extra {facts.required_extra}")
    gradual = unfreezing is GRADUAL
    spec = small_spec(
        facts.task,
        base_model=base_model,
        # EfficientNet-Lite0's alone come with the installation.
        weights=Weights.PRETRAINED if facts.works_offline or facts.takes_encoder else Weights.NONE,
        strategy=Strategy.FINE_TUNE,
        unfreezing=unfreezing,
        image_size=SIDES[facts.task],
        epochs=3 if gradual else 1,
        batch_size=4,
    )
    write_folder(facts.task, tmp_path / "data", count=8)
    order = write_order(tmp_path, tmp_path / "data", spec)
    train(order, Distribution())
    bodies = [entry.body for entry in await read_log(order)]
    assert isinstance(bodies[-1], JobTrained), bodies[-1]
    tuned = [one for one in bodies if isinstance(one, EpochCompleted) and one.progress.phase == TUNING]
    assert len(tuned) == spec.epochs
    result = await read_result(order)
    assert result.parity is not None
    assert result.parity.agreement >= MIN_AGREEMENT[facts.task]
