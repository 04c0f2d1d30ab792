"""Uploads and downloads: wire to domain."""

from collections.abc import AsyncIterator

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import ProjectName, is_sha256
from enxerto.registry.domain import Blob
from enxerto.registry.v1 import registry_service_pb2 as pb

MAX_CHUNK_BYTES = 2**20
_SHA256_RULE = "must be 64 lower-case hexadecimal digits"


async def upload(requests: AsyncIterator[pb.UploadBlobRequest]) -> tuple[Blob, AsyncIterator[bytes]]:
    """What the header declares, and the chunks that follow; those are checked as they come.

    Raises:
        InvalidArgumentError: the header is missing or bad; while reading the chunks, when one is.
    """
    violations = Violations()
    first = await anext(requests, None)
    if first is None or first.WhichOneof("payload") != "header":
        violations.add("header", "is required in the first message")
        violations.raise_if_any()
    assert first is not None
    parent = ProjectName.check(first.header.parent, "header.parent", violations)
    if not is_sha256(first.header.sha256):
        violations.add("header.sha256", _SHA256_RULE)
    if first.header.size_bytes < 0:
        violations.add("header.size_bytes", "must not be negative")
    violations.raise_if_any()
    assert parent is not None
    return Blob(parent, first.header.sha256, first.header.size_bytes), _chunks(requests)


async def _chunks(requests: AsyncIterator[pb.UploadBlobRequest]) -> AsyncIterator[bytes]:
    violations = Violations()
    async for request in requests:
        if request.WhichOneof("payload") != "chunk":
            violations.add("chunk", "is required in every message after the first")
        elif len(request.chunk) > MAX_CHUNK_BYTES:
            violations.add("chunk", f"must be at most {MAX_CHUNK_BYTES} bytes, has {len(request.chunk)}")
        violations.raise_if_any()
        yield request.chunk


def blob_to_download(request: pb.DownloadBlobRequest) -> tuple[ProjectName, str]:
    """The project and the digest."""
    violations = Violations()
    parent = ProjectName.check(request.parent, "parent", violations)
    if not is_sha256(request.sha256):
        violations.add("sha256", _SHA256_RULE)
    violations.raise_if_any()
    assert parent is not None
    return parent, request.sha256
