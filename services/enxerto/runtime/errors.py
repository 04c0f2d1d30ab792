"""What keeps a process from starting; told on one line, without a stack."""


class StartupError(Exception):
    """The process cannot start as it is configured."""


class PortInUseError(StartupError):
    """An address cannot be bound."""

    def __init__(self, host: str, port: int, purpose: str) -> None:
        super().__init__(
            f"cannot listen on {host}:{port} for {purpose}: the port is in use or the address is not this machine's"
        )
        self.host = host
        self.port = port
