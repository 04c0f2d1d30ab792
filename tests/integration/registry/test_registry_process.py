"""The registry as a process of its own: start, health, reflection, metrics, drain, and what keeps it from starting."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from enxerto.registry.v1 import registry_service_pb2 as pb
from enxerto.registry.v1 import registry_service_pb2_grpc as pb_grpc
from registry_requests import PROJECT, create_model, upload_messages

SERVICE = "enxerto.registry.v1.RegistryService"
MIB = 2**20

Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    processes = []

    def launched(**settings: str) -> subprocess.Popen[str]:
        own = {"HOME", "PATH", "LANG", "VIRTUAL_ENV"}
        environment = {key: value for key, value in os.environ.items() if key in own}
        environment |= {"ENXERTO_HOME": str(tmp_path), "ENXERTO_REGISTRY_READY_FILE": str(tmp_path / "ready.json")}
        environment |= {f"ENXERTO_REGISTRY_{key.upper()}": value for key, value in settings.items()}
        command = [sys.executable, "-m", "enxerto.registry"]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield launched
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_ready(process: subprocess.Popen[str], tmp_path: Path) -> dict[str, int]:
    deadline = time.monotonic() + 30
    path = tmp_path / "ready.json"
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "not ready after 30 s"
        time.sleep(0.02)
    ports: dict[str, int] = json.loads(path.read_text())
    return ports


def reflect(channel: grpc.Channel, **query: str) -> Any:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**query)])))


def scrape(port: int) -> dict[str, float]:
    """Sample to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {sample: float(value) for sample, _, value in pairs}


def test_the_process_serves_and_drains(launch: Launch, tmp_path: Path) -> None:
    process = launch()
    ports = wait_ready(process, tmp_path)
    data = os.urandom(24 * MIB)
    sha256 = hashlib.sha256(data).hexdigest()
    # A small window: the server cannot push what the client has not read, so that the download is under way below.
    options = [("grpc.http2.lookahead_bytes", 2**16), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{ports['port']}", options) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert SERVICE in {each.name for each in reflect(channel, list_services="").list_services_response.service}
        assert reflect(channel, file_containing_symbol=SERVICE).file_descriptor_response.file_descriptor_proto

        stub = pb_grpc.RegistryServiceStub(channel)
        stub.CreateModel(create_model())
        stub.UploadBlob(upload_messages(data))
        handled = f'enxerto_rpc_handled_total{{code="OK",method="UploadBlob",service="{SERVICE}"}}'
        while handled not in (samples := scrape(ports["metrics_port"])):
            time.sleep(0.02)
        assert samples[handled] == 1
        assert samples['enxerto_registry_blob_bytes_total{direction="received"}'] == len(data)
        assert samples["process_resident_memory_bytes"] > 0

        download = stub.DownloadBlob(pb.DownloadBlobRequest(parent=PROJECT, sha256=sha256), timeout=30)
        received = [next(download).chunk]
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", ports["port"]), timeout=1).close()
            except OSError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("the port still takes connections")
        assert process.poll() is None
        received += [message.chunk for message in download]
        assert b"".join(received) == data
    assert process.wait(10) == 0
    lines = [json.loads(line) for line in process.communicate()[1].splitlines()]
    messages = [line["message"] for line in lines if line["logger"].startswith("enxerto")]
    assert messages[0] == "listening"
    assert messages[-2:] == ["rpc", "stopped"]
    assert "draining" in messages
    assert {line["service"] for line in lines} == {"registry"}


@pytest.mark.parametrize("setting", ["port", "metrics_port"])
def test_a_port_in_use_is_one_clear_line(launch: Launch, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = launch(**{setting: str(port)})
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    own = [line for line in error.splitlines() if not line.startswith("{")]
    purpose = "gRPC" if setting == "port" else "metrics"
    assert len(own) == 1, error
    assert own[0].startswith(f"enxerto registry: cannot listen on 127.0.0.1:{port} for {purpose}: ")
    assert "Traceback" not in error


def test_a_tls_file_that_is_missing_is_one_clear_line(launch: Launch, tmp_path: Path) -> None:
    process = launch(tls_certificate=str(tmp_path / "none.pem"), tls_key=str(tmp_path / "none.key"))
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    own = [line for line in error.splitlines() if not line.startswith("{")]
    assert own == [f"enxerto registry: cannot read {tmp_path}/none.key: No such file or directory"]


def test_a_database_that_is_away_is_one_clear_line(launch: Launch) -> None:
    process = launch(database_url="postgresql+asyncpg://user:secret-word@127.0.0.1:9/db")
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    own = [line for line in error.splitlines() if not line.startswith("{")]
    assert len(own) == 1, error
    assert own[0].startswith("enxerto registry: cannot open the registry's database: ")
    assert "secret-word" not in error


def test_bad_settings_are_named_each_on_a_line(launch: Launch) -> None:
    process = launch(port="70000", blob_url="ftp://x", drain_s="soon")
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert sorted(line.split(": ")[1] for line in error.splitlines()) == [
        "ENXERTO_REGISTRY_BLOB_URL",
        "ENXERTO_REGISTRY_DRAIN_S",
        "ENXERTO_REGISTRY_PORT",
    ]


def test_a_killed_upload_is_gone_after_the_restart(launch: Launch, tmp_path: Path) -> None:
    process = launch()
    ports = wait_ready(process, tmp_path)
    data = os.urandom(20 * MIB)
    blobs = tmp_path / "registry" / "objects" / "blobs"

    def half() -> Iterator[pb.UploadBlobRequest]:
        for index, message in enumerate(upload_messages(data)):
            if index > 12:
                while not list(blobs.iterdir()):
                    time.sleep(0.01)
                process.kill()
            yield message

    with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel, pytest.raises(grpc.RpcError):
        pb_grpc.RegistryServiceStub(channel).UploadBlob(half(), timeout=30)
    process.wait(10)
    (left,) = blobs.iterdir()
    assert re.fullmatch(rf"{hashlib.sha256(data).hexdigest()}#\d+", left.name)
    (tmp_path / "ready.json").unlink()
    ports = wait_ready(launch(stale_upload_s="0"), tmp_path)
    assert list(blobs.iterdir()) == []
    with grpc.insecure_channel(f"127.0.0.1:{ports['port']}") as channel:
        assert pb_grpc.RegistryServiceStub(channel).UploadBlob(upload_messages(data)).size_bytes == len(data)
