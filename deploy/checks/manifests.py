"""Kubernetes manifests: strict schemas, the restricted pod security standard and more, references that resolve."""

import re
from collections.abc import Iterator

import kubernetes_validate

from checks.custom_resources import custom_resource_problems, is_custom
from checks.rendering import Document, label, pod_specs

KUBERNETES = "1.37"
_NAMED = {"PersistentVolumeClaim", "ConfigMap", "ServiceAccount"}


def schema_problems(documents: list[Document]) -> list[str]:
    """Fields that the API server would refuse or drop."""
    problems = []
    for document in documents:
        if is_custom(document):
            problems += [f"{label(document)}: {problem}" for problem in custom_resource_problems(document)]
            continue
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(map(str, error.path))
            problems.append(f"{label(document)}: {where}: {error.message[:200]}")
        except kubernetes_validate.SchemaNotFoundError:
            problems.append(f"{label(document)}: no schema for {document.get('apiVersion')}")
    return problems


def pod_problems(documents: list[Document]) -> list[str]:
    """What the restricted pod security standard, and this project beyond it, ask of every pod."""
    found = [(where, spec) for document in documents for where, spec in pod_specs(document)]
    return [f"{where}: {problem}" for where, spec in found for problem in _pod_problems(spec)]


def _pod_problems(spec: Document) -> Iterator[str]:
    pod = spec.get("securityContext", {})
    if pod.get("runAsNonRoot") is not True or not pod.get("runAsUser"):
        yield "must run as a numbered user that is not root"
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile must be RuntimeDefault"
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"{name} is not allowed"
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']}: hostPath is not allowed"
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        yield from (f"container {container['name']}: {problem}" for problem in _container_problems(container))


def _container_problems(container: Document) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation must be false"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem must be true"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "must drop ALL capabilities"
    if not re.search(r"(@sha256:[0-9a-f]{64}|:[^:/@]+)$", container.get("image", "")) or container["image"].endswith(
        ":latest"
    ):
        yield "image needs a tag other than latest, or a digest"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
        yield "needs requests of cpu and memory and a limit of memory"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe not in container:
            yield f"needs a {probe}"
    for variable in container.get("env", []):
        if re.search(r"PASSWORD|TOKEN$|SECRET$", variable["name"]) and "value" in variable:
            yield f"{variable['name']} holds a secret in the clear"


def reference_problems(documents: list[Document]) -> list[str]:
    """Config maps, volume claims and accounts that a pod names and nobody makes; services that select nothing.

    Secrets are made by the platform's owner and never live in manifests: a Secret in them is a problem.
    """
    known = {(d["kind"], d["metadata"]["name"]) for d in documents if d.get("kind") in _NAMED}
    problems = [f"{label(d)}: secrets do not belong into manifests" for d in documents if d.get("kind") == "Secret"]
    templates = []
    for document in documents:
        for where, spec in pod_specs(document):
            for reference in _references(spec):
                if reference not in known:
                    problems.append(f"{where}: no {reference[0]} {reference[1]}")
        if document.get("kind") == "Deployment":
            templates.append(document["spec"]["template"])
    for service in (d for d in documents if d.get("kind") == "Service"):
        selector = service["spec"].get("selector", {}).items()
        chosen = [t for t in templates if selector <= t["metadata"].get("labels", {}).items()]
        names = {port.get("name") for t in chosen for c in t["spec"]["containers"] for port in c.get("ports", [])}
        if not chosen:
            problems.append(f"{label(service)}: selects no pod")
        for port in service["spec"]["ports"]:
            if chosen and port.get("targetPort") not in names:
                problems.append(f"{label(service)}: no container port {port.get('targetPort')}")
    return problems


def _references(spec: Document) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in spec:
        yield "ServiceAccount", spec["serviceAccountName"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            yield "PersistentVolumeClaim", claim["claimName"]
        if config := volume.get("configMap"):
            yield "ConfigMap", config["name"]
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            if config := source.get("configMapRef"):
                yield "ConfigMap", config["name"]
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield "volume", mount["name"]
