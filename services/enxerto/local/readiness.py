"""Whether a process answers."""

import urllib.error
import urllib.request
from pathlib import Path

import grpc

from enxerto.runtime.probe import is_serving


def ray_answers(url: str, token_file: Path, timeout_s: float = 2.0) -> bool:
    """Whether Ray's Jobs API answers."""
    headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
    request = urllib.request.Request(f"{url}/api/jobs/", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def service_answers(address: str, timeout_s: float = 2.0) -> bool:
    """Whether a gRPC service says that it is SERVING."""
    try:
        return is_serving(address, None, "", timeout_s)
    except grpc.RpcError:
        return False
