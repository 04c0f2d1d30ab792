"""What can keep the platform from running on this machine."""


class LocalError(Exception):
    """Anything about the local platform that a person can mend."""

    reason = "LOCAL"


class PortInUseError(LocalError):
    """A port is taken."""

    reason = "PORT_IN_USE"

    def __init__(self, port: int, purpose: str, holder: str, other_base: int) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"port {port} ({purpose}) is in use{by}; "
            f"stop that process, or choose other ports, such as `enxerto up --port-base {other_base}`"
        )
        self.port = port


class StartFailedError(LocalError):
    """A process ended or did not become ready."""

    reason = "START_FAILED"

    def __init__(self, process: str, what: str, log: str, tail: str) -> None:
        super().__init__(f"{process} {what}; its log is {log}" + (f" and ends with:\n{tail}" if tail else ""))
        self.process = process


class BusyError(LocalError):
    """Another command starts or stops the same platform."""

    reason = "BUSY"
