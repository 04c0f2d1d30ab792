"""Training batches: made in turn, or ahead of time by processes of their own where a GPU would wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from enxerto.vision.torch.devices import Compute

T = TypeVar("T")


class Feed(Generic[T]):
    """Makes batches, each from what the plan of an epoch says that it is to hold.

    Its processes start with the first batch and end with the object. What `load` needs is theirs without a copy. It
    must depend on its argument alone, return tensors in the memory of the CPU, and not be bound to the feed's owner,
    which would keep the processes alive.
    """

    def __init__(self, load: Callable[[Any], T], compute: Compute) -> None:
        self._load = load
        self._plan = _Plan()
        self._loader: DataLoader[T] | None = None
        if compute.loaders:
            self._loader = DataLoader(
                _Parts(load),
                batch_size=None,
                sampler=self._plan,
                num_workers=compute.loaders,
                persistent_workers=True,
                pin_memory=compute.device.startswith("cuda"),
                multiprocessing_context="fork",
                # Its own: the network draws the same numbers with and without the processes.
                generator=torch.Generator(),
            )

    def follow(self, plan: Iterable[Any]) -> Iterator[T]:
        """The batches of an epoch, in the order of the plan."""
        if self._loader is None:
            return map(self._load, plan)
        self._plan.parts = plan
        return iter(self._loader)


class _Parts(Dataset[T], Generic[T]):
    def __init__(self, load: Callable[[Any], T]) -> None:
        self._load = load

    def __getitem__(self, part: Any) -> T:
        return self._load(part)


class _Plan:
    def __init__(self) -> None:
        self.parts: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)
