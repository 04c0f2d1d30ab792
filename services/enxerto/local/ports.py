"""Which port is whose: one base shifts them all."""

import contextlib
import random
import socket
import time
from dataclasses import dataclass
from typing import Self

import psutil

from enxerto.local.errors import PortInUseError

DEFAULT_BASE = 7300
HOST = "127.0.0.1"
_SPAN = 500
_POLL_S = 0.1
_OFFSETS = {
    "registry": 1,
    "training": 2,
    "inference": 3,
    "registry metrics": 11,
    "training metrics": 12,
    "inference metrics": 13,
    "Ray's control store": 20,
    "Ray's dashboard": 21,
    "Serve's HTTP proxy": 22,
    "Serve's gRPC proxy": 23,
    "Ray's metrics": 24,
    "Ray's dashboard agent": 25,
    "Ray's dashboard agent (gRPC)": 26,
    "Ray's runtime environment agent": 27,
    "Ray's node manager": 28,
    "Ray's object manager": 29,
    "Ray's client server": 30,
}


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one platform: 500 numbers from `base` on."""

    base: int

    def __getitem__(self, purpose: str) -> int:
        return self.base + _OFFSETS[purpose]

    @property
    def replica_grpc(self) -> tuple[int, int]:
        """First and last gRPC port of Serve's replicas."""
        return self.base + 100, self.base + 299

    @property
    def replica_http(self) -> tuple[int, int]:
        """First and last HTTP port of Serve's replicas, which nobody uses."""
        return self.base + 300, self.base + 499

    def check(self, patience_s: float = 0.0) -> None:
        """Make sure that every fixed port is free.

        Args:
            patience_s: how long to wait for all of them.

        Raises:
            PortInUseError: names the first that is not, and who holds it where that can be known.
        """
        deadline = time.monotonic() + patience_s
        for purpose, offset in _OFFSETS.items():
            port = self.base + offset
            while not (free := _is_free(port)) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if not free:
                raise PortInUseError(port, purpose, _holder(port), self.base + 2 * _SPAN)

    @classmethod
    def free(cls) -> Self:
        """A base whose fixed ports are all free now, below the range that outgoing connections use."""
        bases = list(range(12_000, 32_000, _SPAN))
        random.shuffle(bases)
        for base in bases:
            ports = cls(base)
            with contextlib.suppress(PortInUseError):
                # The next base may be free.
                ports.check()
                return ports
        raise PortInUseError(bases[-1], "anything", "", DEFAULT_BASE)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that ended a minute ago do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
    except psutil.Error:
        # Another user's process, or one that just ended: the port alone must do.
        return ""
    return ""
