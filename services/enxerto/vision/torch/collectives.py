"""Talk between the workers of a run; with one worker, nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True, slots=True)
class Distribution:
    """This worker's place. With more than one, `torch.distributed` is initialised by the caller.

    Attributes:
        rank: from 0.
        world_size: workers in all.
        local_rank: among the workers of this machine; picks the GPU.
        local_world_size: workers of this machine; they share its cores.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world_size and 0 <= self.local_rank < self.local_world_size):
            raise ValueError(f"rank {self.rank} of {self.world_size} is not a worker")
        if self.world_size > 1 and not dist.is_initialized():
            raise ValueError("torch.distributed must be initialised before a run with several workers")


def gather_rows(rows: torch.Tensor, indices: torch.Tensor, total: int, where: Distribution) -> torch.Tensor:
    """Every worker's (n, ...) rows, in the order of their indices: (total, ...), the same on each worker."""
    if where.world_size > 1:
        longest = -(-total // where.world_size)
        padded_rows = rows.new_zeros((longest, *rows.shape[1:]))
        padded_rows[: len(rows)] = rows
        padded_indices = indices.new_full((longest,), -1)
        padded_indices[: len(indices)] = indices
        all_rows = [torch.empty_like(padded_rows) for _ in range(where.world_size)]
        all_indices = [torch.empty_like(padded_indices) for _ in range(where.world_size)]
        dist.all_gather(all_rows, padded_rows)
        dist.all_gather(all_indices, padded_indices)
        rows, indices = torch.cat(all_rows), torch.cat(all_indices)
        rows, indices = rows[indices >= 0], indices[indices >= 0]
    return rows[torch.argsort(indices)]


def sum_over_workers(values: torch.Tensor, where: Distribution) -> torch.Tensor:
    """Elementwise sum over the workers."""
    if where.world_size > 1:
        dist.all_reduce(values)
    return values


def as_first(values: Sequence[float], where: Distribution, device: str) -> list[float]:
    """Those of rank 0, on every worker."""
    if where.world_size == 1:
        return list(values)
    sent = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(sent, src=0)
    return [float(value) for value in sent]


def any_worker(value: bool, where: Distribution, device: str) -> bool:
    """Whether it is so on any worker; the same on each."""
    if where.world_size == 1:
        return value
    return bool(sum_over_workers(torch.tensor(float(value), device=device), where) > 0)


def same_as_first(module: nn.Module, where: Distribution) -> None:
    """Overwrite every worker's parameters and buffers with those of rank 0."""
    if where.world_size > 1:
        with torch.no_grad():
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)
