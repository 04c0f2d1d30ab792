"""How the protocol names a model and its version."""

import functools
from dataclasses import dataclass

from enxerto.kernel.errors import Violations
from enxerto.kernel.names import DeploymentName, is_id, is_number

DEFAULT_PROJECT = "default"

_KEPT_KEYS = 1024


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Which model a request means."""

    name: DeploymentName
    number: int | None = None
    """The version asked for, if any."""
    alias: str = ""
    """The alias asked for, if any."""


@functools.lru_cache(_KEPT_KEYS)
def model_key(name: str, version: str, name_field: str, version_field: str) -> ModelKey:
    """Read a model name: a deployment's id in the project `default`, or its full name.

    What can be read is remembered, and none of it is long.

    Raises:
        InvalidArgumentError: name or version cannot be one.
    """
    violations = Violations()
    deployment = DeploymentName(DEFAULT_PROJECT, name) if is_id(name) else DeploymentName.try_parse(name)
    if deployment is None:
        violations.add(name_field, f"must be the id of a deployment, or {DeploymentName.template()}")
    if version and not is_number(version) and not is_id(version):
        violations.add(version_field, "must be the number of a version, an alias, or empty")
    violations.raise_if_any()
    assert deployment is not None
    if is_number(version):
        return ModelKey(deployment, int(version))
    return ModelKey(deployment, alias=version)


def model_id(name: DeploymentName) -> str:
    """What the protocol calls a deployment: its id in the project `default`, elsewhere its full name."""
    return name.deployment if name.project == DEFAULT_PROJECT else str(name)
