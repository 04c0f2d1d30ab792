"""The `enxerto` command."""

from enxerto.cli.app import main

__all__ = ["main"]
