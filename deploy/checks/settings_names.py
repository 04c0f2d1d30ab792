"""Every ENXERTO_* variable that a deployment sets must be a setting that the service has."""

import re
from typing import Any

from checks.rendering import Document, pod_specs
from enxerto.inference.settings import InferenceSettings
from enxerto.registry.settings import RegistrySettings
from enxerto.runtime.settings import SECRETS_FOLDER_VARIABLE, ServerSettings
from enxerto.training.settings import TrainingSettings

SETTINGS: dict[str, type[ServerSettings]] = {
    "registry": RegistrySettings,
    "training": TrainingSettings,
    "inference": InferenceSettings,
}
# Read by every part for its embedded files, and by the Ray image.
_SHARED = {"ENXERTO_HOME", SECRETS_FOLDER_VARIABLE}


def variables(service: type[ServerSettings]) -> dict[str, str]:
    """Environment variable of each field: {variable: field}."""
    prefix = service.model_config.get("env_prefix", "")
    found = {}
    for name, field in service.model_fields.items():
        alias = field.validation_alias
        found[alias if isinstance(alias, str) else f"{prefix}{name}".upper()] = name
    return found


def name_problems(where: str, names: list[str]) -> list[str]:
    """Names that no service reads."""
    known = {name for service in SETTINGS.values() for name in variables(service)} | _SHARED
    return [f"{where}: no service reads {name}" for name in names if name.startswith("ENXERTO_") and name not in known]


def missing_problems(where: str, service: str, given: set[str]) -> list[str]:
    """Settings without a default that a deployment does not give."""
    fields = SETTINGS[service].model_fields
    needed = {name for name, field in variables(SETTINGS[service]).items() if fields[field].is_required()}
    return [f"{where}: {name} is not set" for name in sorted(needed - given)]


def manifest_problems(documents: list[Document]) -> list[str]:
    """Check config maps and the containers' own variables."""
    maps = {d["metadata"]["name"]: d.get("data", {}) for d in documents if d.get("kind") == "ConfigMap"}
    problems = [problem for name, data in maps.items() for problem in name_problems(f"ConfigMap/{name}", [*data])]
    for document in documents:
        for where, spec in pod_specs(document):
            for container in spec["containers"]:
                own = {variable["name"] for variable in container.get("env", [])}
                problems += name_problems(where, sorted(own))
                if container["name"] in SETTINGS:
                    sources = [s["configMapRef"]["name"] for s in container.get("envFrom", []) if "configMapRef" in s]
                    given = own.union(*(maps.get(source, {}) for source in sources))
                    # What the secrets folder holds cannot be seen here.
                    secret = {f"ENXERTO_{container['name'].upper()}_DATABASE_URL"}
                    given |= secret if SECRETS_FOLDER_VARIABLE in given else set()
                    problems += missing_problems(where, container["name"], given)
    return problems


def compose_problems(compose: dict[str, Any]) -> list[str]:
    """Check the environment of each service of a compose file."""
    problems = []
    for name, service in compose["services"].items():
        given = {*service.get("environment", {})}
        problems += name_problems(f"compose service {name}", sorted(given))
        if name in SETTINGS:
            secrets = {secret.upper() for secret in service.get("secrets", []) if re.match("enxerto_", secret)}
            problems += name_problems(f"compose secrets of {name}", sorted(secrets))
            problems += missing_problems(f"compose service {name}", name, given | secrets)
    return problems
