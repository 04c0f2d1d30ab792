"""What chooses the trials of a sweep."""

from collections.abc import Callable, Mapping
from typing import Protocol

from enxerto.training.domain import SweepPlan


class Search(Protocol):
    """Chooses the parameters of one sweep's trials. In memory: it is built again from the trials after a restart."""

    def ask(self, number: int) -> Mapping[str, str]:
        """Parameters of the trial with this number, as text."""
        ...

    def restore(self, number: int, parameters: Mapping[str, str]) -> None:
        """A trial that was begun before this search was built; reports follow as they would have."""
        ...

    def report(self, number: int, step: int, score: float) -> bool:
        """The trial's score after so many comparable epochs, from 1; returns whether it should stop for doing worse."""
        ...

    def tell(self, number: int, score: float | None) -> None:
        """The trial is over, with its best score, or None when it failed."""
        ...


Searches = Callable[[SweepPlan], Search]
"""Builds the search of a sweep."""
