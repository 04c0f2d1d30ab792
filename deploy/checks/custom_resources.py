"""Validate custom resources against their CRDs: closed schemas, and the CEL rules that need no old object."""

import gzip
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError
from jsonschema import Draft202012Validator

from checks.rendering import Document, load_documents

SCHEMAS = Path(__file__).parent / "schemas"
_INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
_DROPPED = ("description", "default", "example", "externalDocs", "nullable", "format")


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn a structural OpenAPI v3 schema into a closed JSON schema, as `kubectl --validate=strict` reads it."""
    if schema.get("x-kubernetes-int-or-string"):
        return {**_INT_OR_STRING, **({"pattern": schema["pattern"]} if "pattern" in schema else {})}
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key.startswith("x-kubernetes") or key in _DROPPED:
            continue
        if key == "properties":
            closed[key] = {name: _json_schema(part) for name, part in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            closed[key] = _json_schema(value)
        else:
            closed[key] = value
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    if closed.get("type") == "object" and "properties" in closed and not open_ended:
        closed.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in closed:
        closed["type"] = [closed["type"], "null"]
    if schema.get("format") == "int32":
        closed["minimum"] = max(closed.get("minimum", -(2**31)), -(2**31))
        closed["maximum"] = 2**31 - 1
    return closed


@cache
def _definitions() -> dict[tuple[str, str], tuple[Draft202012Validator, dict[str, Any]]]:
    """Every version of every CRD that is kept here, by (apiVersion, kind)."""
    found = {}
    for path in sorted(SCHEMAS.glob("*.yaml*")):
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        for spec in (document["spec"] for document in load_documents(text)):
            for version in spec["versions"]:
                raw = version["schema"]["openAPIV3Schema"]
                schema = _json_schema(raw)
                schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
                schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
                key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                found[key] = Draft202012Validator(schema), raw
    return found


def is_custom(document: Document) -> bool:
    """Whether Kubernetes itself does not know the kind: its group has a domain outside of k8s.io."""
    group = document.get("apiVersion", "").partition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def custom_resource_problems(document: Document) -> list[str]:
    """What is wrong with one custom resource; an unknown kind is wrong."""
    key = document.get("apiVersion", ""), document.get("kind", "")
    if key not in _definitions():
        return [f"no schema for {key[1]} of {key[0]}"]
    validator, raw = _definitions()[key]
    fields = [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in validator.iter_errors(document)]
    return [*fields, *_rule_problems(raw, document)]


def _rule_problems(raw: dict[str, Any], value: object, path: str = "") -> Iterator[str]:
    for rule in raw.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"]:
            continue
        environment = celpy.Environment()
        program = environment.program(environment.compile(rule["rule"]))
        try:
            holds = bool(program.evaluate({"self": json_to_cel(value)}))  # type: ignore[arg-type]
        except CELEvalError as error:
            # A rule that cannot run must not pass silently.
            yield f"{path}: rule {rule['rule']!r} could not run: {error}"
            continue
        if not holds:
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        extra = raw.get("additionalProperties")
        for key, child in value.items():
            part = raw.get("properties", {}).get(key) or (extra if isinstance(extra, dict) else None)
            if part:
                yield from _rule_problems(part, child, f"{path}.{key}")
    elif isinstance(value, list) and "items" in raw:
        for index, child in enumerate(value):
            yield from _rule_problems(raw["items"], child, f"{path}[{index}]")
