"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One drawing.

    Attributes:
        name: of its file, without a suffix; letters, digits, `-` and `_`.
        caption: for people.
        png: the encoded picture.
    """

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """One table; cells that are numbers in every row are set flush right.

    Attributes:
        title: above it.
        header: a name for each column.
        rows: as long as the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"rows of {self.title!r} are not as long as its header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is shown, in this order.

    Attributes:
        title: of the page.
        headline: names and values at the top.
        warnings: what a person should know before trusting the numbers.
        figures: names are unique.
        tables: below the figures.
        data_figures: of what was trained and measured on, below the results.
        data_tables: below these.
        provenance: names and values: where the version comes from.
        environment: names and values: what it was computed with.
    """

    title: str
    headline: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    data_figures: tuple[Figure, ...] = ()
    data_tables: tuple[Table, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Of the results and of the data."""
        return (*self.figures, *self.data_figures)

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.all_figures]
        if len(set(names)) != len(names):
            raise ValueError(f"figures share a name: {sorted(names)}")
