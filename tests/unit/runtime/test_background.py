"""A loop beside the server ends the process when it fails, and is ended with it."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from enxerto.runtime.server import serve_until_signalled
from enxerto.runtime.settings import ServerSettings


async def test_a_failed_loop_ends_the_service_with_its_error() -> None:
    async def fail() -> None:
        raise LookupError("the loop failed")

    with pytest.raises(LookupError, match="the loop failed"):
        await serve_until_signalled(
            ServerSettings(drain_s=0), CollectorRegistry(), [], lambda _server: None, background=[fail]
        )


async def test_a_signal_ends_the_loops_and_the_ready_file_tells_the_ports(tmp_path: Path) -> None:
    ended = asyncio.Event()
    ready = tmp_path / "ready.json"

    async def loop() -> None:
        try:
            while not ready.exists():
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            ended.set()

    settings = ServerSettings(drain_s=0, ready_file=ready)
    await serve_until_signalled(settings, CollectorRegistry(), [], lambda _server: None, background=[loop])
    assert ended.is_set()
    assert set(json.loads(ready.read_text())) == {"port", "metrics_port"}
    assert os.listdir(tmp_path) == ["ready.json"]  # noqa: PTH208
