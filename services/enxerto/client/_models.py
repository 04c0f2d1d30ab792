"""Models and their versions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from enxerto.client import _converters, _results
from enxerto.client._download import download_artifact
from enxerto.client._errors import NotFoundError
from enxerto.client._sweeps import SweepCalls
from enxerto.registry.v1 import registry_service_pb2

_REPORT = ".html"


class ModelCalls(SweepCalls):
    """Models and versions."""

    def model(self, name: str) -> _results.Model:
        """Read a model."""
        request = registry_service_pb2.GetModelRequest(name=self._names.model(name))
        return _converters.model(self._call(self._stubs.registry.GetModel, request))

    def models(self, limit: int | None = None) -> Iterator[_results.Model]:
        """The project's models, by name."""
        request = registry_service_pb2.ListModelsRequest(parent=self._names.project)
        return map(_converters.model, self._pages(self._stubs.registry.ListModels, request, "models", limit))

    def version(self, name: str) -> _results.Version:
        """Read a version by number or alias: `flowers@3`, `flowers@production`."""
        request = registry_service_pb2.GetModelVersionRequest(name=self._names.version(name))
        return _converters.version(self._call(self._stubs.registry.GetModelVersion, request))

    def versions(self, model: str, limit: int | None = None) -> Iterator[_results.Version]:
        """A model's versions, newest first."""
        request = registry_service_pb2.ListModelVersionsRequest(parent=self._names.model(model))
        pages = self._pages(self._stubs.registry.ListModelVersions, request, "model_versions", limit)
        return map(_converters.version, pages)

    def promote(self, version: str, alias: str = "production") -> _results.Model:
        """Point an alias to a version. Deployments that name the alias follow without failing a request.

        Args:
            version: by number or by another alias: `flowers@3`, `flowers@candidate`.
            alias: the alias to move; created when it is new.
        """
        name = self.version(version).name
        request = registry_service_pb2.SetAliasRequest(model=name.partition("/versions/")[0], alias=alias, version=name)
        return _converters.model(self._call(self._stubs.registry.SetAlias, request))

    def download(
        self, version: str, folder: Path | str, *, roles: Sequence[str] = (), timeout_s: float = 3600.0
    ) -> list[Path]:
        """Download a version's files; a file that is there already with the right bytes is left alone.

        Args:
            version: by number or alias.
            folder: where to put the files; created when it does not exist.
            roles: only artifacts of these roles (MODEL, REPORT, OTHER); all when empty.
            timeout_s: deadline of each file.

        Raises:
            ChecksumError: the bytes are not what the registry promised; nothing is left under the file's name.
        """
        found = self.version(version)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        parent = "/".join(found.name.split("/")[:2])
        return [
            download_artifact(self._stubs.registry.DownloadBlob, parent, artifact, target, timeout_s)
            for artifact in found.artifacts
            if not roles or artifact.role in roles
        ]

    def report(self, name: str, folder: Path | str, *, timeout_s: float = 600.0) -> Path:
        """Download the report of a version, or of a run: one HTML file that holds everything it shows.

        Args:
            name: a version (`flowers@3`), or a run.
            folder: where to put it; created when it does not exist.
            timeout_s: deadline of each file.

        Raises:
            NotFoundError: there is none (yet).
        """
        version = name
        if "@" not in name and "/versions/" not in name:
            run = self.run(name)
            version = run.model_version
            if not version:
                return _html(self.download_run_files(run, folder, timeout_s=timeout_s), name)
        return _html(self.download(version, folder, roles=["REPORT"], timeout_s=timeout_s), name)


def _html(files: Sequence[Path], name: str) -> Path:
    for file in files:
        if file.suffix == _REPORT:
            return file
    raise NotFoundError(f"{name} has no report", code="NOT_FOUND", reason="REPORT_NOT_FOUND")
