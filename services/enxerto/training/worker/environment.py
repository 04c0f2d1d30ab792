"""What a version was computed with, for its report."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import onnxruntime
import torch

from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute

_PACKAGES: Final = ("enxerto", "torch", "torchvision", "timm", "onnx", "ray", "numpy")


def describe_environment(compute: Compute, where: Distribution) -> dict[str, str]:
    """Names and values for people."""
    device = compute.device
    if device.startswith("cuda"):
        device = f"{device}: {torch.cuda.get_device_name(torch.device(device))}"
    return {
        "workers": str(where.world_size),
        "device": device,
        "precision": compute.amp_dtype or "float32",
        "threads of a worker": str(compute.threads),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in _PACKAGES},
        # Its package is called otherwise on a GPU.
        "onnxruntime": onnxruntime.__version__,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
