"""The registry's metadata in memory; passes the same suite as the SQL store."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from enxerto.kernel.names import ModelName, ProjectName, VersionName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.registry.domain import Blob, Model, Request, State, Version, VersionContent
from enxerto.registry.errors import (
    ModelExistsError,
    ModelNotFoundError,
    RequestIdReusedError,
    VersionNotFoundError,
)


class InMemoryMetadataStore:
    """A `MetadataStore`: no method awaits anything, so that each is one transaction."""

    def __init__(self) -> None:
        self._models: dict[ModelName, Model] = {}
        self._versions: dict[VersionName, Version] = {}
        self._blobs: dict[tuple[ProjectName, str], Blob] = {}
        self._requests: dict[tuple[ProjectName, str, str], tuple[str, ModelName, int]] = {}

    async def create_model(self, model: Model, request: Request | None) -> Model:
        if earlier := self._earlier(model.name.parent, "model", request):
            return self._models[earlier[0]]
        if model.name in self._models:
            raise ModelExistsError(model.name)
        self._models[model.name] = model
        self._remember("model", request, model.name, 0)
        return model

    async def get_model(self, name: ModelName) -> Model:
        return self._model(name)

    async def find_models(self, names: Collection[ModelName]) -> Mapping[ModelName, Model]:
        return {name: self._models[name] for name in names if name in self._models}

    async def list_models(self, parent: ProjectName, page: PageRequest) -> Page[Model]:
        names = sorted(name for name in self._models if name.parent == parent and name.model > page.after)
        found = [self._models[name] for name in names[: page.size]]
        return Page(found, found[-1].name.model if len(names) > page.size else "")

    async def update_model(self, name: ModelName, change: Callable[[Model], Model]) -> Model:
        self._models[name] = change(self._model(name))
        return self._models[name]

    async def create_version(
        self, parent: ModelName, content: VersionContent, now: datetime, request: Request | None
    ) -> tuple[Version, bool]:
        model = self._model(parent)
        if earlier := self._earlier(parent.parent, "version", request):
            return self._versions[VersionName(parent.project, earlier[0].model, earlier[1])], False
        self._models[parent], version = model.next_version(content, now)
        self._versions[version.name] = version
        self._remember("version", request, parent, version.name.number)
        return version, True

    async def get_version(self, name: VersionName) -> Version:
        if name not in self._versions:
            raise VersionNotFoundError(name)
        return self._versions[name]

    async def find_states(self, names: Collection[VersionName]) -> Mapping[VersionName, State]:
        return {name: self._versions[name].state for name in names if name in self._versions}

    async def list_versions(self, parent: ModelName, page: PageRequest) -> Page[Version]:
        before = int(page.after) if page.after else self._model(parent).latest + 1
        self._model(parent)
        numbers = sorted(name for name in self._versions if name.parent == parent and name.number < before)[::-1]
        found = [self._versions[name] for name in numbers[: page.size]]
        keys = [str(version.name.number) for version in found]
        return Page(found, keys[-1] if len(numbers) > page.size else "", keys)

    async def add_blob(self, blob: Blob, now: datetime) -> None:
        self._blobs.setdefault((blob.parent, blob.sha256), blob)

    async def find_blobs(self, parent: ProjectName, digests: Sequence[str]) -> Mapping[str, Blob]:
        return {sha256: self._blobs[parent, sha256] for sha256 in digests if (parent, sha256) in self._blobs}

    def _model(self, name: ModelName) -> Model:
        if name not in self._models:
            raise ModelNotFoundError(name)
        return self._models[name]

    def _earlier(self, parent: ProjectName, kind: str, request: Request | None) -> tuple[ModelName, int] | None:
        found = self._requests.get((parent, kind, request.id)) if request else None
        if request is None or found is None:
            return None
        fingerprint, name, number = found
        if fingerprint != request.fingerprint:
            raise RequestIdReusedError(request.id)
        return name, number

    def _remember(self, kind: str, request: Request | None, name: ModelName, number: int) -> None:
        if request:
            self._requests[name.parent, kind, request.id] = (request.fingerprint, name, number)


class CountingMeter:
    """A `Meter` that a test can read."""

    def __init__(self) -> None:
        self.versions: list[State] = []
        self.alias_moves = 0
        self.received = 0
        self.sent = 0
        self.uploads: list[bool] = []

    def count_version(self, state: State) -> None:
        self.versions.append(state)

    def count_alias_move(self) -> None:
        self.alias_moves += 1

    def count_received(self, size_bytes: int) -> None:
        self.received += size_bytes

    def count_sent(self, size_bytes: int) -> None:
        self.sent += size_bytes

    def count_upload(self, *, stored: bool) -> None:
        self.uploads.append(stored)
