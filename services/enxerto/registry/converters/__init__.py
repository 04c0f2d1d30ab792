"""Between the wire and the domain. Reading a request gathers every bad field before it refuses."""

from enxerto.registry.converters.answers import (
    download_to_proto,
    model_to_proto,
    models_to_proto,
    resolved_to_proto,
    upload_to_proto,
    version_to_proto,
    versions_to_proto,
)
from enxerto.registry.converters.blobs import blob_to_download, upload
from enxerto.registry.converters.requests import (
    alias_to_delete,
    alias_to_set,
    model_name,
    model_to_create,
    models_to_list,
    references_to_resolve,
    version_reference,
    version_to_create,
    versions_to_list,
)

__all__ = [
    "alias_to_delete",
    "alias_to_set",
    "blob_to_download",
    "download_to_proto",
    "model_name",
    "model_to_create",
    "model_to_proto",
    "models_to_list",
    "models_to_proto",
    "references_to_resolve",
    "resolved_to_proto",
    "upload",
    "upload_to_proto",
    "version_reference",
    "version_to_create",
    "version_to_proto",
    "versions_to_list",
    "versions_to_proto",
]
