"""What needs an NVIDIA GPU, a CUDA build of torch and onnxruntime-gpu: `python -m pytest tests/gpu`."""

import onnxruntime as ort
import pytest
import torch

PROVIDER = "CUDAExecutionProvider"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder where there is no GPU."""
    if not torch.cuda.is_available():
        reason = "needs an NVIDIA GPU that torch can use"
    elif PROVIDER not in ort.get_available_providers():
        reason = "needs onnxruntime-gpu in place of onnxruntime"
    else:
        return
    for item in items:
        if "gpu" in item.path.parts:
            item.add_marker(pytest.mark.skip(reason=reason))
