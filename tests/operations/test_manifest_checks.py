"""Every gate of deploy/check.py passes what is deployed and fails on what it is there for."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import check
import pytest
import yaml
from checks import containers, manifests, settings_names
from checks.rendering import RenderError, pod_specs, render

Document = dict[str, Any]
ROOT = check.ROOT


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    return render(ROOT / "k8s" / "base")


@pytest.fixture
def documents(rendered: list[Document]) -> list[Document]:
    """What base renders to, for a test to spoil."""
    return copy.deepcopy(rendered)


def find(documents: list[Document], kind: str, name: str) -> Document:
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)


def container(documents: list[Document], kind: str, name: str) -> Document:
    spec = pod_specs(find(documents, kind, name))[-1][1]
    return spec["containers"][0]


def test_what_is_deployed_passes_every_check_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "deploy/check.py"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "schemas of overlays/production" in done.stdout


def test_a_folder_that_kustomize_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(RenderError, match="missing"):
        render(tmp_path)


def test_an_unknown_field_of_a_built_in_kind_fails(documents: list[Document]) -> None:
    container(documents, "Deployment", "registry")["livenessProb"] = {}
    assert any("livenessProb" in problem for problem in manifests.schema_problems(documents))


def test_an_unknown_field_of_a_custom_resource_fails(documents: list[Document]) -> None:
    find(documents, "RayCluster", "serving")["spec"]["rayVersoin"] = "2.60.0"
    assert any("rayVersoin" in problem for problem in manifests.schema_problems(documents))


def test_an_unknown_field_of_a_pod_inside_a_custom_resource_fails(documents: list[Document]) -> None:
    container(documents, "RayCluster", "training")["imagePullPolcy"] = "Always"
    assert any("imagePullPolcy" in problem for problem in manifests.schema_problems(documents))


@pytest.mark.parametrize("version", ["ray.io/v1", "example.org/v1", "apps.k8s.io/v9", "v7"])
def test_a_kind_without_a_schema_fails(version: str) -> None:
    unknown = {"apiVersion": version, "kind": "Mystery", "metadata": {"name": "x"}}
    assert len(manifests.schema_problems([unknown])) == 1


def spoil_security(key: str, value: object) -> Any:
    def spoil(spec: Document) -> None:
        spec["containers"][0]["securityContext"][key] = value

    return spoil


def spoil_spec(key: str, value: object) -> Any:
    def spoil(spec: Document) -> None:
        spec[key] = value

    return spoil


def spoil_container(key: str, value: object) -> Any:
    def spoil(spec: Document) -> None:
        spec["containers"][0][key] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_security("allowPrivilegeEscalation", True), "allowPrivilegeEscalation"),
        (spoil_security("readOnlyRootFilesystem", False), "readOnlyRootFilesystem"),
        (spoil_security("capabilities", {"drop": ["NET_RAW"]}), "capabilities"),
        (spoil_spec("securityContext", {"runAsUser": 0}), "root"),
        (spoil_spec("securityContext", {"runAsNonRoot": True, "runAsUser": 1}), "seccomp"),
        (spoil_spec("automountServiceAccountToken", True), "automount"),
        (spoil_spec("hostNetwork", True), "hostNetwork"),
        (spoil_spec("volumes", [{"name": "x", "hostPath": {"path": "/"}}]), "hostPath"),
        (spoil_container("image", "enxerto/registry:latest"), "tag"),
        (spoil_container("image", "registry:5000/enxerto"), "tag"),
        (spoil_container("resources", {}), "requests"),
        (spoil_container("livenessProbe", {}), ""),
        (spoil_container("env", [{"name": "RAY_AUTH_TOKEN", "value": "hunter2"}]), "secret"),
    ],
)
@pytest.mark.parametrize("kind", ["Deployment", "RayCluster"])
def test_a_pod_that_is_not_restricted_fails(documents: list[Document], kind: str, spoil: Any, expected: str) -> None:
    spec = pod_specs(find(documents, kind, "training"))[-1][1]
    if expected:
        spoil(spec)
    else:
        del spec["containers"][0]["livenessProbe"]
        expected = "livenessProbe"
    problems = manifests.pod_problems(documents)
    assert any(expected in problem for problem in problems), problems


def test_references_to_nothing_fail(documents: list[Document]) -> None:
    spec = pod_specs(find(documents, "Deployment", "registry"))[0][1]
    spec["serviceAccountName"] = "nobody"
    spec["volumes"][0]["persistentVolumeClaim"]["claimName"] = "nowhere"
    spec["containers"][0]["envFrom"] = [{"configMapRef": {"name": "nothing"}}]
    spec["containers"][0]["volumeMounts"].append({"name": "lost", "mountPath": "/x"})
    find(documents, "Service", "training")["spec"]["selector"] = {"app": "gone"}
    find(documents, "Service", "inference")["spec"]["ports"][0]["targetPort"] = "http"
    documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "leak"}})
    problems = "\n".join(manifests.reference_problems(documents))
    for word in ("nobody", "nowhere", "nothing", "lost", "selects no pod", "container port http", "Secret/leak"):
        assert word in problems


def test_a_setting_that_no_service_reads_fails(documents: list[Document]) -> None:
    find(documents, "ConfigMap", "registry")["data"]["ENXERTO_REGISTRY_BLOB_ULR"] = "file:///x"
    container(documents, "RayCluster", "serving")["env"].append({"name": "ENXERTO_INFERENCE_GPU", "value": "1"})
    problems = "\n".join(settings_names.manifest_problems(documents))
    assert "ENXERTO_REGISTRY_BLOB_ULR" in problems
    assert "ENXERTO_INFERENCE_GPU" in problems


def test_a_required_setting_that_is_not_given_fails(documents: list[Document]) -> None:
    del find(documents, "ConfigMap", "inference")["data"]["ENXERTO_INFERENCE_REPLICA_SECRET_FILE"]
    assert settings_names.manifest_problems(documents) == [
        "Deployment/inference: ENXERTO_INFERENCE_REPLICA_SECRET_FILE is not set"
    ]


def test_values_in_the_manifests_are_values_that_the_settings_accept(
    rendered: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service, settings in settings_names.SETTINGS.items():
        for name, value in find(rendered, "ConfigMap", service)["data"].items():
            monkeypatch.setenv(name, value)
        assert settings().metrics_port == int(
            find(rendered, "ConfigMap", service)["data"][f"ENXERTO_{service.upper()}_METRICS_PORT"]
        )


def test_grace_periods_are_longer_than_the_drain(rendered: list[Document]) -> None:
    for service in settings_names.SETTINGS:
        spec = pod_specs(find(rendered, "Deployment", service))[0][1]
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = float(find(rendered, "ConfigMap", service)["data"][f"ENXERTO_{service.upper()}_DRAIN_S"])
        assert spec["terminationGracePeriodSeconds"] > pause + drain


def test_only_the_front_reaches_the_ports_of_replicas(rendered: list[Document]) -> None:
    serving = next(pod for pod in pod_specs(find(rendered, "RayCluster", "serving")) if pod[0].endswith("cpu"))[1]
    environment = {v["name"]: v["value"] for v in serving["containers"][0]["env"]}
    low = int(environment["RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT"])
    high = int(environment["RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT"])
    openers = set()
    for policy in (d for d in rendered if d["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            ports = rule.get("ports", [])
            numbered = [p for p in ports if isinstance(p["port"], int)]
            if any(p["port"] <= high and p.get("endPort", p["port"]) >= low for p in numbered) or not ports:
                for labels in (peer["podSelector"]["matchLabels"] for peer in rule["from"]):
                    openers.add((policy["metadata"]["name"], labels["app.kubernetes.io/name"]))
    assert openers == {
        ("ray-serving", "inference"),
        ("ray-serving", "ray-serving"),
        ("ray-training", "ray-training"),
    }


@pytest.fixture
def compose_folder(tmp_path: Path) -> Path:
    """A copy of what the compose file refers to."""
    for source in ("prometheus", "grafana", "postgres"):
        (tmp_path / "deploy" / source).mkdir(parents=True)
    for path in (ROOT / "deploy").glob("*.Dockerfile"):
        (tmp_path / "deploy" / path.name).write_text(path.read_text())
    for path in ("prometheus/prometheus.yaml", "postgres/create_databases.sql"):
        (tmp_path / "deploy" / path).touch()
    for path in ("prometheus/rules", "grafana/provisioning", "grafana/dashboards"):
        (tmp_path / "deploy" / path).mkdir()
    return tmp_path / "deploy"


@pytest.mark.parametrize(
    ("service", "change", "expected"),
    [
        ("registry", {"enviroment": {}}, "enviroment"),
        ("registry", {"ports": ["7301:7301"]}, "loopback"),
        ("registry", {"volumes": ["nowhere:/x"]}, "no volume nowhere"),
        ("prometheus", {"volumes": ["./missing.yaml:/x"]}, "no file ./missing.yaml"),
        ("registry", {"secrets": ["unknown"]}, "no secret unknown"),
        ("registry", {"depends_on": {"redis": {"condition": "service_started"}}}, "redis"),
        ("registry", {"depends_on": {"grafana": {"condition": "service_healthy"}}}, "no check"),
        ("registry", {"build": {"context": "..", "dockerfile": "deploy/none.Dockerfile"}}, "none.Dockerfile"),
        ("grafana", {"image": "grafana/grafana"}, "not pinned"),
        ("grafana", {}, ""),
    ],
)
def test_a_broken_compose_file_fails(compose_folder: Path, service: str, change: Document, expected: str) -> None:
    compose = containers.load_compose(check.COMPOSE)
    compose["services"][service] |= change
    path = compose_folder / "compose.yaml"
    path.write_text(yaml.safe_dump(compose))
    problems = containers.compose_problems(path)
    assert any(expected in problem for problem in problems) if expected else problems == []


def test_a_compose_variable_that_no_service_reads_fails() -> None:
    compose = containers.load_compose(check.COMPOSE)
    compose["services"]["training"]["environment"]["ENXERTO_TRAINING_BLOB"] = "x"
    del compose["services"]["inference"]["environment"]["ENXERTO_INFERENCE_REPLICA_SECRET_FILE"]
    compose["services"]["registry"]["secrets"].append("enxerto_registry_databse_url")
    problems = "\n".join(settings_names.compose_problems(compose))
    for word in ("ENXERTO_TRAINING_BLOB", "ENXERTO_INFERENCE_REPLICA_SECRET_FILE", "ENXERTO_REGISTRY_DATABSE_URL"):
        assert word in problems


GOOD_DOCKERFILE = """FROM docker.io/library/python:3.11.14-slim-bookworm
COPY here /here
USER 10001
HEALTHCHECK CMD ["true"]
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", ""),
        (":3.11.14-slim-bookworm", "", "DL3006"),
        ("USER 10001", "USER root", "not root"),
        ("USER 10001", "USER 0", "not root"),
        ("COPY here", "COPY missing here", "nothing to copy: missing"),
        ("USER 10001", "RUN pip install --no-cache-dir x==1\nUSER 10001", "installs or builds"),
        ("HEALTHCHECK CMD", "CMD", "no HEALTHCHECK"),
    ],
)
def test_a_broken_dockerfile_fails(tmp_path: Path, old: str, new: str, expected: str) -> None:
    (tmp_path / "here").touch()
    path = tmp_path / "x.Dockerfile"
    path.write_text("# x\n" + GOOD_DOCKERFILE.replace(old, new, 1))
    problems = containers.dockerfile_problems(path, tmp_path)
    assert any(expected in problem for problem in problems) if expected else problems == []
