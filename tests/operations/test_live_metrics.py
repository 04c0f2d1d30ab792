"""Every metric that the dashboard and the alerts read exists on a running platform, under exactly that name."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check
import pytest
import yaml
from checks import monitoring
from prometheus_client.parser import text_string_to_metric_families

from platforms import Platform

SERVICES = ("registry", "training", "inference")
# What a family of a kind exposes beside its own name.
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
    return text


def exposed_names(text: str) -> set[str]:
    """Names of the series of a scrape, those too that have no sample yet."""
    names = set()
    for family in text_string_to_metric_families(text):
        names |= {family.name, *(family.name + suffix for suffix in SUFFIXES.get(family.type, ()))}
        names |= {sample.name for sample in family.samples}
    return names


def expressions() -> dict[str, str]:
    dashboard = json.loads(check.DASHBOARD.read_text())
    return monitoring.dashboard_expressions(dashboard) | monitoring.rule_expressions(check.RULES)


def exposed_by(platform: Platform) -> set[str]:
    names = {"up"}
    for service in (*SERVICES, "ray"):
        names |= exposed_names(fetch(platform.metrics_url(service)))
    return names


def test_every_metric_that_is_read_is_exposed(platform: Platform) -> None:
    read = {name for expression in expressions().values() for name in monitoring.metric_names(expression)}
    missing = read
    # Ray opens its metrics port after its dashboard, and measures its nodes every few seconds.
    deadline = time.monotonic() + 60
    while missing and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            missing = read - exposed_by(platform)
        if missing:
            time.sleep(0.5)
    assert missing == set()


@pytest.fixture
def prometheus(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that scrapes the platform with the project's own configuration; yields its URL."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install --no-install-recommends prometheus")
    configuration: dict[str, Any] = yaml.safe_load((check.DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(check.RULES)]
    for job in configuration["scrape_configs"]:
        address = urllib.parse.urlsplit(platform.metrics_url(job["job_name"].removeprefix("enxerto-"))).netloc
        job["static_configs"] = [{"targets": [address]}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        program,
        f"--config.file={tmp_path}/prometheus.yaml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for_targets(url, 4, process, tmp_path / "log")
            yield url
        finally:
            process.terminate()
            process.wait(20)


def wait_for_targets(url: str, count: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    healthy: list[str] = []
    while time.monotonic() < deadline and process.poll() is None:
        try:
            targets = json.loads(fetch(f"{url}/api/v1/targets"))["data"]["activeTargets"]
        except OSError:
            targets = []
        healthy = [target["labels"]["job"] for target in targets if target["health"] == "up"]
        if len(healthy) == count:
            return
        time.sleep(0.2)
    raise AssertionError(f"only {healthy} were scraped:\n{log.read_text()}")


def test_a_real_prometheus_scrapes_the_platform_and_answers_every_query(platform: Platform, prometheus: str) -> None:
    for name, expression in expressions().items():
        query = urllib.parse.urlencode({"query": expression})
        answer = json.loads(fetch(f"{prometheus}/api/v1/query?{query}"))
        assert answer["status"] == "success", f"{name}: {answer}"
        assert not answer.get("warnings"), f"{name}: {answer}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        rules = json.loads(fetch(f"{prometheus}/api/v1/rules"))["data"]["groups"]
        states = [rule["health"] for group in rules for rule in group["rules"]]
        if "unknown" not in states:
            break
        time.sleep(0.2)
    assert set(states) == {"ok"}
    query = urllib.parse.urlencode({"query": 'sum(up{job=~"enxerto-.*"})'})
    assert json.loads(fetch(f"{prometheus}/api/v1/query?{query}"))["data"]["result"][0]["value"][1] == "4"
