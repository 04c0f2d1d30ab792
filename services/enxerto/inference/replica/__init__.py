"""What runs inside Ray: the only part of the service that imports it."""

from enxerto.inference.replica.application import build

__all__ = ["build"]
