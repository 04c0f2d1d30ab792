"""One artifact to one file, visible only when it is whole and verified."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enxerto.client._channel import call
from enxerto.client._errors import ChecksumError
from enxerto.client._results import Artifact
from enxerto.registry.v1 import registry_service_pb2


def download_artifact(
    send: Callable[..., Any], parent: str, artifact: Artifact, folder: Path, timeout_s: float
) -> Path:
    """Download an artifact into a folder.

    Args:
        send: the stub's DownloadBlob.
        parent: the project that holds the blob.
        artifact: what to download.
        folder: an existing folder.
        timeout_s: deadline of the whole file.

    Raises:
        ChecksumError: the bytes do not have the artifact's sha256; no file is left.
    """
    target = folder / Path(artifact.filename).name
    if target.is_file() and _sha256(target) == artifact.sha256:
        return target
    request = registry_service_pb2.DownloadBlobRequest(parent=parent, sha256=artifact.sha256)
    return download_file(send, request, target, timeout_s, artifact.sha256)


def download_file(
    send: Callable[..., Any], request: Any, target: Path, timeout_s: float, expected_sha256: str = ""
) -> Path:
    """Write a stream of chunks to a file that appears when it is whole.

    Raises:
        ChecksumError: the bytes do not have the sha256 that is expected, if any; no file is left.
    """
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")

    def fetch(request: Any, **options: Any) -> str:
        digest = hashlib.sha256()
        with partial.open("wb") as file:
            for message in send(request, **options):
                digest.update(message.chunk)
                file.write(message.chunk)
        return digest.hexdigest()

    try:
        sha256 = call(fetch, request, timeout_s=timeout_s)
        if expected_sha256 and sha256 != expected_sha256:
            raise ChecksumError(
                f"{target.name}: expected sha256 {expected_sha256}, received {sha256}",
                code="DATA_LOSS",
                reason="CHECKSUM_MISMATCH",
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
