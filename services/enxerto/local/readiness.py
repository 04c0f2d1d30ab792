"""Whether a process answers."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import grpc

from enxerto.runtime.probe import is_serving


def ray_answers(url: str, token_file: Path, timeout_s: float = 2.0) -> bool:
    """Whether Ray has a living machine: its REST API alone answers earlier, and also when the machine never comes."""
    headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
    request = urllib.request.Request(f"{url}/api/v0/nodes?limit=100", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            machines = json.load(response)["data"]["result"]["result"]
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError):
        return False
    return any(one.get("state") == "ALIVE" for one in machines)


def service_answers(address: str, timeout_s: float = 2.0) -> bool:
    """Whether a gRPC service says that it is SERVING."""
    try:
        return is_serving(address, None, "", timeout_s)
    except grpc.RpcError:
        return False
