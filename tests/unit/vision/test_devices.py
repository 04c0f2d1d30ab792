import pytest
import torch

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.finetuning import Precision
from enxerto.vision.torch.devices import Compute, DeviceFacts, choose_compute, detect


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (DeviceFacts(0, False, 8), Compute("cpu", None, 8)),
        (DeviceFacts(1, True, 8), Compute("cuda:0", "bfloat16", 8, 7)),
        (DeviceFacts(1, False, 8), Compute("cuda:0", "float16", 8, 7)),
    ],
)
def test_device_and_precision_follow_the_facts(facts: DeviceFacts, expected: Compute) -> None:
    assert choose_compute(facts) == expected


def test_workers_of_a_machine_share_cores_and_devices() -> None:
    facts = DeviceFacts(2, True, 9)
    chosen = [choose_compute(facts, workers_per_machine=4, local_rank=rank) for rank in range(4)]
    assert [one.device for one in chosen] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert {one.threads for one in chosen} == {2}
    assert choose_compute(DeviceFacts(0, False, 2), workers_per_machine=4).threads == 1


def test_only_float16_scales_gradients() -> None:
    assert [Compute("cuda:0", dtype, 1).scales_gradients for dtype in ("float16", "bfloat16", None)] == [
        True,
        False,
        False,
    ]


def test_this_machine_has_cores() -> None:
    assert detect().cores >= 1


def test_torch_computes_with_the_threads_that_were_chosen() -> None:
    before = torch.get_num_threads()
    try:
        Compute("cpu", None, before + 1).claim_threads()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_who_has_reserved_no_gpu_does_not_take_one_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    assert choose_compute(detect()).device == "cuda:0"
    assert choose_compute(detect(gpus=False)).device == "cpu"


def test_a_precision_asked_for_is_used_or_refused() -> None:
    gpu = DeviceFacts(1, True, 8)
    asked = {precision: choose_compute(gpu, precision=precision).amp_dtype for precision in Precision}
    assert asked == {"AUTO": "bfloat16", "FP32": None, "BF16": "bfloat16", "FP16": "float16"}
    assert choose_compute(DeviceFacts(0, False, 2), precision=Precision.BF16).amp_dtype == "bfloat16"
    with pytest.raises(InvalidArgumentError, match="needs a GPU"):
        choose_compute(DeviceFacts(0, False, 2), precision=Precision.FP16)
    with pytest.raises(InvalidArgumentError, match="BF16"):
        choose_compute(DeviceFacts(1, False, 2), precision=Precision.BF16)
