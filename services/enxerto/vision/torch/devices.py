"""Which device, precision and number of threads to compute with: decided here and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

from enxerto.kernel.cores import usable_cores
from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.finetuning import Precision

_MOST_LOADERS: Final = 8
_DTYPES: Final = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the machine has.

    Attributes:
        cuda_devices: visible to this process.
        bf16: whether the first of them computes in bfloat16.
        cores: CPU cores that this process may use.
    """

    cuda_devices: int
    bf16: bool
    cores: int


@dataclass(frozen=True, slots=True)
class Compute:
    """How to compute.

    Attributes:
        device: in torch's notation.
        amp_dtype: of automatic mixed precision; None computes in float32.
        threads: of torch's operators, and of image decoding.
        loaders: processes that make training batches ahead; 0 makes them in turn.
    """

    device: str
    amp_dtype: str | None
    threads: int
    loaders: int = 0

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients would underflow without scaling: float16 only."""
        return self.amp_dtype == "float16"

    def seed(self, value: int) -> None:
        """Seed the numbers that the CPU and the device draw; `torch.manual_seed` is too slow for every step."""
        torch.default_generator.manual_seed(value)
        if self.device.startswith("cuda"):
            torch.cuda.default_generators[torch.device(self.device).index or 0].manual_seed(value)

    def claim_threads(self) -> None:
        """Let torch's operators have the threads; Ray starts a worker with as many as it has CPUs reserved."""
        torch.set_num_threads(self.threads)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision, where it is used."""
        if self.amp_dtype is None:
            yield
            return
        with torch.autocast(torch.device(self.device).type, dtype=_DTYPES[self.amp_dtype]):
            yield


def choose_compute(
    facts: DeviceFacts, *, precision: Precision = Precision.AUTO, workers_per_machine: int = 1, local_rank: int = 0
) -> Compute:
    """CUDA where it is, else the CPU.

    AUTO is bfloat16 on a GPU that has it, float16 on another, and float32 on a CPU: there bfloat16 without AMX or
    AVX512-BF16 is emulated and slower. What is asked for by name is what is used. Beside a GPU the cores make training
    batches; on a CPU they compute, and other processes would take turns with them.

    Raises:
        InvalidArgumentError: float16 on a CPU, which has no kernels to train with, or bfloat16 on a GPU without it.
    """
    threads = max(1, facts.cores // max(1, workers_per_machine))
    if facts.cuda_devices == 0:
        if precision is Precision.FP16:
            raise InvalidArgumentError([Violation("precision", "FP16 needs a GPU; this machine has none")])
        return Compute("cpu", "bfloat16" if precision is Precision.BF16 else None, threads)
    if precision is Precision.BF16 and not facts.bf16:
        raise InvalidArgumentError([Violation("precision", "this machine's GPU does not compute in BF16")])
    automatic = "bfloat16" if facts.bf16 else "float16"
    dtypes = {Precision.AUTO: automatic, Precision.FP32: None, Precision.BF16: "bfloat16", Precision.FP16: "float16"}
    device = f"cuda:{local_rank % facts.cuda_devices}"
    return Compute(device, dtypes[precision], threads, min(_MOST_LOADERS, max(1, threads - 1)))


def detect(*, gpus: bool = True) -> DeviceFacts:
    """The facts of this machine; without `gpus` as if it had none, for Ray shows them to who has reserved none too."""
    count = torch.cuda.device_count() if gpus and torch.cuda.is_available() else 0
    return DeviceFacts(
        cuda_devices=count,
        bf16=count > 0 and torch.cuda.is_bf16_supported(including_emulation=False),
        cores=usable_cores(),
    )
