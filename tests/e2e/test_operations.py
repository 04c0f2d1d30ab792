"""The processes of the platform: metrics, drain, crashes, ports."""

import json
import signal
import socket
import urllib.request

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from e2e_loop import Grafted
from enxerto.client import RunState
from enxerto.local import processes
from platforms import Platform, run_enxerto

SERVICES = {
    "registry": ["enxerto.registry.v1.RegistryService"],
    "training": ["enxerto.training.v1.DatasetService", "enxerto.training.v1.TrainingService"],
    "inference": [
        "enxerto.inference.v1.DeploymentService",
        "enxerto.inference.v1.VisionService",
        "enxerto.inference.v1.QualityService",
        "inference.GRPCInferenceService",
    ],
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_healthy_and_describes_itself(platform: Platform, service: str) -> None:
    with grpc.insecure_channel(platform.address(service)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES[service]):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflection.ServerReflectionInfo(iter([request]), timeout=5)
        assert set(SERVICES[service]) <= {item.name for item in listed.list_services_response.service}


@pytest.mark.parametrize(
    ("service", "own"),
    [
        ("registry", "enxerto_registry_versions"),
        ("training", "enxerto_training_runs{"),
        ("inference", "enxerto_inference_"),
    ],
)
def test_every_service_shows_rates_and_its_own_metrics(grafted: Grafted, service: str, own: str) -> None:
    with urllib.request.urlopen(grafted.platform.metrics_url(service), timeout=5) as response:
        text = response.read().decode()
    for series in ("enxerto_rpc_handled_total{", "enxerto_rpc_seconds_bucket{", "enxerto_rpc_in_flight{", own):
        assert f"\n{series}" in text, f"{series} is not in\n{text}"


def test_status_shows_every_process(platform: Platform) -> None:
    document = json.loads(platform.enxerto("status", "--json").stdout)
    assert document["healthy"]
    assert [process["name"] for process in document["processes"]] == ["ray", *SERVICES]
    assert all(psutil.pid_exists(process["pid"]) for process in document["processes"])


def test_replicas_go_before_nothing_and_behind_nothing(grafted: Grafted) -> None:
    family = processes.family(grafted.platform.state.instance)
    urgency = {" ".join(process.cmdline()): process.nice() for process in family}
    replicas = [niceness for title, niceness in urgency.items() if title.startswith("ray::ServeReplica")]
    assert replicas
    assert {*replicas} == {niceness for title, niceness in urgency.items() if title.endswith("-m enxerto.inference")}


def test_up_again_changes_nothing(platform: Platform) -> None:
    before = platform.state
    done = platform.enxerto("up")
    assert "running already" in done.stdout
    assert platform.state == before


def test_a_port_in_use_is_told(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> None:
    port = int(platform.address("registry").rpartition(":")[2])
    other = tmp_path_factory.mktemp("other")
    done = run_enxerto(other, ["up", "--port-base", str(port - 1), "--json"])
    assert done.returncode == 1
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "PORT_IN_USE"
    assert str(port) in error["message"]
    assert "--port-base" in error["message"]


def test_a_run_and_its_watcher_survive_a_kill_of_the_service(grafted: Grafted) -> None:
    platform = grafted.platform
    run = platform.client.train("digits", model="digits", epochs=3, seed=2)
    events = platform.client.watch(run)
    seen = [next(events)]
    while seen[-1].state is not RunState.RUNNING:
        seen.append(next(events))
    platform.kill("training")
    platform.start_missing()
    seen += events
    assert [event.cursor for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].state is RunState.SUCCEEDED
    assert platform.client.run(run.name).model_version == seen[-1].model_version


@pytest.mark.parametrize("service", SERVICES)
def test_sigterm_ends_a_service_cleanly_and_up_brings_it_back(grafted: Grafted, service: str) -> None:
    platform = grafted.platform
    process = platform.signal(service, signal.SIGTERM)
    # psutil reaps only what is its child, and the status is then what the service chose.
    assert process.wait(25) in (0, None)
    with socket.socket() as probe:
        host, port = platform.address(service).split(":")
        assert probe.connect_ex((host, int(port))) != 0
    platform.start_missing()
    assert json.loads(platform.enxerto("status", "--json").stdout)["healthy"]
    assert platform.client.classify("digits", grafted.held_out[:1])[0].model_version
