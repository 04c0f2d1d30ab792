"""Fetches a version's ONNX file from the registry and keeps it by its digest. Used by replicas at their start."""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import grpc

from enxerto.inference.adapters.model_cache import NOTE, PARTIAL, prune, read_note, use, write_note
from enxerto.inference.errors import RegistryUnavailableError, VersionNotFoundError, VersionNotServableError
from enxerto.kernel.errors import DataLossError
from enxerto.kernel.names import VersionName
from enxerto.registry.v1 import model_version_pb2, registry_service_pb2, registry_service_pb2_grpc

logger = logging.getLogger(__name__)

_CALL_S = 10.0
_DOWNLOAD_S = 600.0


def fetch_model(name: VersionName, address: str, certificates: Path | None, cache: Path) -> Path:
    """The path of the version's ONNX file, fetched unless it is there already.

    A version never changes: while its registry is away, the file that was fetched for it before is still the right one.

    Raises:
        VersionNotFoundError: the registry has no such version.
        VersionNotServableError: the version is quarantined or has no graph.
        RegistryUnavailableError: the registry cannot be reached, and the file is not there.
        DataLossError: the bytes that came are not those of the digest.
    """
    credentials = grpc.ssl_channel_credentials(certificates.read_bytes()) if certificates else None
    # The folder may have files of other registries, whose versions have the same names.
    note = cache / f"{hashlib.sha256(f'{address} {name}'.encode()).hexdigest()}{NOTE}"
    channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    with channel:
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        try:
            request = registry_service_pb2.GetModelVersionRequest(name=str(name))
            version = stub.GetModelVersion(request, timeout=_CALL_S, wait_for_ready=True)
            digest = _digest(name, version)
            path = cache / f"{digest}.onnx"
            if not use(path):
                _download(stub, name, digest, path)
                prune(cache)
            write_note(note, digest)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.NOT_FOUND:
                raise VersionNotFoundError(str(name)) from error
            path = cache / f"{read_note(note)}.onnx"
            if not use(path):
                raise RegistryUnavailableError(f"the registry at {address} answered {code.name}") from error
            logger.warning("the registry is away; a file from before is used", extra={"version": str(name)})
    return path


def _digest(name: VersionName, version: model_version_pb2.ModelVersion) -> str:
    if version.state != model_version_pb2.ModelVersion.STATE_READY:
        raise VersionNotServableError(name, "is not READY")
    for artifact in version.artifacts:
        if artifact.role == model_version_pb2.Artifact.ROLE_MODEL:
            return artifact.sha256
    raise VersionNotServableError(name, "has no file of the role MODEL")


def _download(stub: registry_service_pb2_grpc.RegistryServiceStub, name: VersionName, digest: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = hashlib.sha256()
    # Replicas of one node share the folder: each writes its own file and renames it, so that a reader sees a whole one.
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            request = registry_service_pb2.DownloadBlobRequest(parent=f"projects/{name.project}", sha256=digest)
            for message in stub.DownloadBlob(request, timeout=_DOWNLOAD_S):
                file.write(message.chunk)
                found.update(message.chunk)
        if found.hexdigest() != digest:
            raise DataLossError(f"the bytes of {name} are not those of {digest}")
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
