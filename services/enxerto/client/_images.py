"""Images in as few requests as the services' limits allow, and errors that name the caller's files."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enxerto.client._errors import InvalidArgumentError, Violation

MAX_IMAGES = 64
"""In one request."""
_MAX_BYTES = 24 * 2**20
_INDEX = re.compile(r"^images\[(\d+)\]")


@dataclass(slots=True)
class Batch:
    """The images of one request."""

    first: int
    """Position of the first image in the caller's list."""
    contents: list[bytes] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Where each image was read from; empty for bytes."""

    @contextlib.contextmanager
    def blaming(self) -> Iterator[None]:
        """Let violations name the caller's positions and files instead of the request's positions."""
        try:
            yield
        except InvalidArgumentError as error:
            error.violations = tuple(map(self._blame, error.violations))
            raise

    def _blame(self, violation: Violation) -> Violation:
        match = _INDEX.match(violation.field)
        if match is None or int(match[1]) >= len(self.contents):
            return violation
        position = int(match[1])
        name = f"images[{self.first + position}]{violation.field[match.end() :]}"
        if self.files[position]:
            name += f" ({self.files[position]})"
        return Violation(name, violation.description)


def batches(images: Sequence[Path | str | bytes], most: int = MAX_IMAGES) -> Iterator[Batch]:
    """Read and group images: at most so many and 24 MiB a request, and a larger image alone."""
    batch, size_bytes = Batch(0), 0
    for position, image in enumerate(images):
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        if batch.contents and (len(batch.contents) == most or size_bytes + len(content) > _MAX_BYTES):
            yield batch
            batch, size_bytes = Batch(position), 0
        batch.contents.append(content)
        batch.files.append("" if isinstance(image, bytes) else str(image))
        size_bytes += len(content)
    # No images at all is a request too: the service says what is wrong with it.
    if batch.contents or not images:
        yield batch
