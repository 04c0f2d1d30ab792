"""What is read out of Ray Serve's answer, whose shape is that of Ray 2.60."""

from typing import Any

from enxerto.inference.adapters.serve_cluster import statuses
from enxerto.inference.domain import ApplicationState, Endpoint


def group(application: str, *targets: tuple[str, int], protocol: str = "gRPC") -> dict[str, Any]:
    named = [{"ip": "10.0.0.1", "port": port, "instance_id": "", "name": name} for name, port in targets]
    return {"targets": named, "route_prefix": f"/{application}", "protocol": protocol, "app_name": application}


def details(status: str, *groups: dict[str, Any], message: str = "", replica: str = "") -> dict[str, Any]:
    application = {"status": status, "message": message, "deployments": {"replica": {"message": replica}}}
    return {"applications": {"a": application}, "target_groups": list(groups)}


REPLICA = ("SERVE_REPLICA::a#replica#x", 42000)
PROXY = ("SERVE_PROXY_ACTOR-1", 9000)


def test_replicas_are_found() -> None:
    found = statuses(details("RUNNING", group("a", REPLICA), group("a", ("x", 1), protocol="HTTP")), direct=True)
    assert found["a"].state is ApplicationState.RUNNING
    assert found["a"].endpoints == (Endpoint("10.0.0.1:42000", "a"),)


def test_a_proxy_is_no_replica() -> None:
    assert statuses(details("UNHEALTHY", group("a", PROXY)), direct=True)["a"].endpoints == ()


def test_without_direct_ingress_the_proxies_are_used() -> None:
    found = statuses(details("RUNNING", group("", PROXY)), direct=False)
    assert found["a"].endpoints == (Endpoint("10.0.0.1:9000", "a"),)


def test_what_is_being_removed_has_no_replicas() -> None:
    found = statuses(details("DELETING", group("a", REPLICA)), direct=True)["a"]
    assert (found.state, found.endpoints) == (ApplicationState.STOPPING, ())


def test_of_a_traceback_the_replicas_own_words_are_kept() -> None:
    stack = "Traceback (most recent call last):\n  File x\nReplicaStartError: cannot serve: no such model\nmore lines"
    found = statuses(details("DEPLOY_FAILED", message="Deploying failed\nsee log", replica=stack), direct=True)["a"]
    assert (found.state, found.message) == (ApplicationState.FAILED, "no such model")


def test_serve_says_nothing_of_replicas_while_it_builds_an_application_anew() -> None:
    said = details("DEPLOYING", group("a", PROXY))
    said["applications"]["a"]["deployments"] = {}
    found = statuses(said, direct=True)["a"]
    assert (found.endpoints, found.known) == ((), False)
    running = details("RUNNING", group("a", REPLICA))
    running["applications"]["a"]["deployments"]["replica"]["replicas"] = [{"state": "RUNNING"}, {"state": "STARTING"}]
    found = statuses(running, direct=True)["a"]
    assert (found.running, found.known) == (1, True)
    said["applications"]["a"]["status"] = "DELETING"
    assert statuses(said, direct=True)["a"].known


def test_before_serve_runs_there_is_nothing() -> None:
    assert statuses({}, direct=True) == {}
    assert statuses(None, direct=True) == {}
