"""Dockerfiles and the compose file."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

_SCHEMA = Path(__file__).parent / "schemas" / "compose-spec.json"


def dockerfile_problems(path: Path, context: Path) -> list[str]:
    """What hadolint finds, sources that do not exist, and a final stage that is root or builds."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True, check=False)  # noqa: S603
    problems = [line for line in (done.stdout + done.stderr).splitlines() if line]
    if done.returncode and not problems:
        problems.append(f"{path.name}: hadolint ended with {done.returncode}")
    text = re.sub(r"\\\n", " ", path.read_text())
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        problems += [f"{path.name}: nothing to copy: {source}" for source in sources if not (context / source).exists()]
    final = text[text.rfind("\nFROM ") :]
    users = re.findall(r"^USER (\S+)", final, re.MULTILINE)
    if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]):
        problems.append(f"{path.name}: the final stage needs a numbered user that is not root")
    if re.search(r"pip install|apt-get install|\bgcc\b|build-essential", final):
        problems.append(f"{path.name}: the final stage installs or builds")
    if "HEALTHCHECK" not in final:
        problems.append(f"{path.name}: no HEALTHCHECK")
    return problems


@cache
def _validator() -> Draft7Validator:
    return Draft7Validator(json.loads(_SCHEMA.read_text()))


def compose_problems(path: Path) -> list[str]:
    """Fields that the compose specification does not know, files and names that do not exist, open ports."""
    compose = load_compose(path)
    problems = [
        f"{path.name}: {'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in _validator().iter_errors(compose)
    ]
    if problems:
        return problems
    for name, service in compose["services"].items():
        problems += [f"{path.name}: {name}: {problem}" for problem in _service_problems(compose, service, path.parent)]
    return problems


def load_compose(path: Path) -> dict[str, Any]:
    """Read a compose file, its extension fields merged."""
    compose: dict[str, Any] = yaml.safe_load(path.read_text())
    return compose


def _service_problems(compose: dict[str, Any], service: dict[str, Any], folder: Path) -> list[str]:
    problems = []
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            if not (folder / source).exists():
                problems.append(f"no file {source}")
        elif source not in compose.get("volumes", {}):
            problems.append(f"no volume {source}")
    problems += [f"no secret {name}" for name in service.get("secrets", []) if name not in compose.get("secrets", {})]
    problems += [
        f"no network {name}" for name in service.get("networks", []) if name not in compose.get("networks", {})
    ]
    for name, wanted in service.get("depends_on", {}).items():
        other = compose["services"].get(name)
        if other is None:
            problems.append(f"depends on {name}, which is not there")
        elif wanted["condition"] == "service_healthy" and "healthcheck" not in other and "build" not in other:
            problems.append(f"waits for the health of {name}, which has no check")
    open_ports = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    problems += [f"port {port} is not bound to loopback" for port in open_ports]
    if build := service.get("build"):
        if not (folder / build["context"] / build["dockerfile"]).exists():
            problems.append(f"no {build['dockerfile']}")
    elif not re.search(r":[^:/]+$", service["image"]) or service["image"].endswith(":latest"):
        problems.append(f"image {service['image']} is not pinned")
    return problems
