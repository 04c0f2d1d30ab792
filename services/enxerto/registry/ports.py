"""What the registry needs from the world."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from enxerto.kernel.names import ModelName, ProjectName, VersionName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.registry.domain import Blob, Model, Request, State, Version, VersionContent


class MetadataStore(Protocol):
    """Keeps models, versions, and which blobs are whole. Every method is one transaction."""

    async def create_model(self, model: Model, request: Request | None) -> Model:
        """Keep a new model, or return what an earlier call with the same request made.

        Raises:
            ModelExistsError: there is one of this name.
            RequestIdReusedError: the earlier request said something else.
        """
        ...

    async def get_model(self, name: ModelName) -> Model:
        """Read a model, or raise `ModelNotFoundError`."""
        ...

    async def find_models(self, names: Collection[ModelName]) -> Mapping[ModelName, Model]:
        """Those of the models that there are."""
        ...

    async def list_models(self, parent: ProjectName, page: PageRequest) -> Page[Model]:
        """Models of a project by id, in byte order."""
        ...

    async def update_model(self, name: ModelName, change: Callable[[Model], Model]) -> Model:
        """Replace a model by what `change` makes of it, with no other update in between.

        Raises:
            ModelNotFoundError: there is none. Whatever `change` raises passes, and nothing changes.
        """
        ...

    async def create_version(
        self, parent: ModelName, content: VersionContent, now: datetime, request: Request | None
    ) -> tuple[Version, bool]:
        """Keep the next version, numbered without gaps, or find what an earlier call with the same request made.

        Returns:
            The version, and whether this call made it.

        Raises:
            ModelNotFoundError: there is no such model.
            RequestIdReusedError: the earlier request said something else.
        """
        ...

    async def get_version(self, name: VersionName) -> Version:
        """Read a version, or raise `VersionNotFoundError`."""
        ...

    async def find_states(self, names: Collection[VersionName]) -> Mapping[VersionName, State]:
        """States of those of the versions that there are."""
        ...

    async def list_versions(self, parent: ModelName, page: PageRequest) -> Page[Version]:
        """Versions of a model, newest first; raises `ModelNotFoundError`."""
        ...

    async def add_blob(self, blob: Blob, now: datetime) -> None:
        """Note that a blob is whole; noting it again changes nothing."""
        ...

    async def find_blobs(self, parent: ProjectName, digests: Sequence[str]) -> Mapping[str, Blob]:
        """Those of the blobs that the project has, by digest."""
        ...


class BlobStore(Protocol):
    """Keeps bytes by digest. It trusts the digest that it is told; whoever calls it checks."""

    async def put(self, sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep bytes. They become visible all at once after `chunks` has ended; if it raises, nothing is left.

        Raises:
            StorageFullError: no room.
            StorageUnavailableError: the store cannot be reached.
        """
        ...

    def read(self, sha256: str, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """The bytes in order, at most 1 MiB at once.

        Raises:
            BlobCorruptError: the bytes are gone or their number is another.
            StorageUnavailableError: the store cannot be reached.
        """
        ...

    async def free_bytes(self) -> int | None:
        """Room that is left, or None where it cannot be known."""
        ...


class Meter(Protocol):
    """Counts what the registry does."""

    def count_version(self, state: State) -> None:
        """A version was created."""
        ...

    def count_alias_move(self) -> None:
        """An alias was set or removed."""
        ...

    def count_received(self, size_bytes: int) -> None:
        """Bytes of an upload arrived."""
        ...

    def count_sent(self, size_bytes: int) -> None:
        """Bytes of a download left."""
        ...

    def count_upload(self, *, stored: bool) -> None:
        """An upload ended; `stored` says whether its bytes were whole."""
        ...
