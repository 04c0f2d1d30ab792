"""The immutable content of a version as a JSON document."""

import dataclasses
from typing import Any

from enxerto.registry.domain import Artifact, Lineage, Metric, Parity, Role, VersionContent
from enxerto.vision.specs import LabelMap, PreprocessSpec, TensorSpec


def to_document(content: VersionContent) -> dict[str, Any]:
    """Plain values for a JSON column."""
    return {**dataclasses.asdict(content), "preprocess": content.preprocess.to_json()}


def from_document(document: dict[str, Any]) -> VersionContent:
    """The reverse of `to_document`."""
    parity = document["parity"]
    return VersionContent(
        artifacts=tuple(Artifact(**{**item, "role": Role(item["role"])}) for item in document["artifacts"]),
        label_map=LabelMap(tuple(document["label_map"]["names"])),
        preprocess=PreprocessSpec.from_json(document["preprocess"]),
        inputs=_tensors(document["inputs"]),
        outputs=_tensors(document["outputs"]),
        lineage=Lineage(**document["lineage"]),
        metrics=tuple(Metric(**item) for item in document["metrics"]),
        parity=Parity(**{**parity, "batch_sizes": tuple(parity["batch_sizes"])}) if parity else None,
        labels=document["labels"],
    )


def _tensors(items: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(item["name"], item["datatype"], tuple(item["shape"])) for item in items)
