"""Kubernetes manifests as the cluster would receive them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]


class RenderError(Exception):
    """kustomize refused a folder."""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that also reads the bare `=` in prometheus-operator's enums."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


def load_documents(text: str) -> list[Document]:
    """Read every document that is not empty."""
    return [document for document in yaml.load_all(text, Loader=Loader) if document]


def render(folder: Path) -> list[Document]:
    """Render a kustomization.

    Raises:
        RenderError: kustomize cannot render it.
    """
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run(  # noqa: S603
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RenderError(f"{folder}: {done.stderr.strip()}")
    return load_documents(done.stdout)


def label(document: Document) -> str:
    """How a problem names a document."""
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def pod_specs(document: Document) -> list[tuple[str, Document]]:
    """Every pod template of a document, with where it is; those inside of a RayCluster too."""
    spec = document.get("spec") or {}
    if document.get("kind") == "Pod":
        return [(label(document), spec)]
    if document.get("kind") == "RayCluster":
        groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
        return [(f"{label(document)}/{group.get('groupName', 'head')}", group["template"]["spec"]) for group in groups]
    if "template" in spec:
        return [(label(document), spec["template"]["spec"])]
    return []
