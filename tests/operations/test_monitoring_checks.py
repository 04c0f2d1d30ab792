"""Alert rules and the dashboard, without a service."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import check
import pytest
import yaml
from checks import monitoring

from enxerto.inference.adapters.prometheus_meter import PrometheusMeter
from enxerto.runtime.metrics import new_registry


@pytest.fixture
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(check.DASHBOARD.read_text())
    return loaded


def problems_of(dashboard: dict[str, Any], folder: Path) -> str:
    path = folder / "spoilt.json"
    path.write_text(json.dumps(dashboard))
    return "\n".join(monitoring.dashboard_problems(path))


def chart(dashboard: dict[str, Any]) -> dict[str, Any]:
    return next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gridPos": {"x": 0, "y": 1, "w": 24, "h": 8}}, "overlaps"),
        ({"id": 1}, "taken"),
        ({"datasource": {"type": "prometheus", "uid": "mine"}}, "data source"),
        ({"fieldConfig": {"defaults": {}}}, "no unit"),
        ({"targets": []}, "no query"),
        ({"targets": [{"refId": "A", "expr": "sum(rate(x[5m])"}]}, "A"),
        ({"targets": [{"refId": "A", "expr": "1 + 1"}]}, "reads no series"),
    ],
)
def test_a_broken_panel_fails(dashboard: dict[str, Any], tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    assert problems_of(dashboard, tmp_path) == ""
    chart(dashboard).update(change)
    assert expected in problems_of(dashboard, tmp_path)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("sum by (a) (rate(x_total[5m])) / sum(y)", {"x_total", "y"}),
        ("histogram_quantile(0.9, sum by (le) (rate(z_bucket{a=~'b'}[5m]))) > 1", {"z_bucket"}),
        ("(a or vector(0)) unless on () topk(3, b)", {"a", "b"}),
        ("absent(c) and -d", {"c", "d"}),
        ("max_over_time(rate(e[1m])[5m:1m])", {"e"}),
    ],
)
def test_metric_names_are_found_in_every_place(expression: str, names: set[str]) -> None:
    assert monitoring.metric_names(expression) == names


def test_every_metric_of_inference_is_shown_and_every_one_shown_is_there(dashboard: dict[str, Any]) -> None:
    metrics = new_registry()
    PrometheusMeter(metrics)
    kept = {metric.name: metric.type for metric in metrics.collect() if metric.name.startswith("enxerto_inference_")}
    shown = {
        name
        for expression in monitoring.dashboard_expressions(dashboard).values()
        for name in monitoring.metric_names(expression)
        if name.startswith("enxerto_inference_")
    }
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    exposed = {name + ending: name for name, kind in kept.items() for ending in endings[kind]}
    assert shown <= set(exposed)
    assert {exposed[name] for name in shown} == set(kept)


def test_a_rule_that_does_not_parse_fails(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "sum("}]}]}))
    assert monitoring.expression_problems("rules", monitoring.rule_expressions(rules))


def test_the_resource_is_stale_when_a_rule_changes(tmp_path: Path) -> None:
    changed = tmp_path / "enxerto.yaml"
    changed.write_text(check.RULES.read_text().replace("> 0.02", "> 0.03"))
    assert monitoring.rule_resource(changed) != check.RULE_RESOURCE.read_text()
    assert monitoring.rule_resource(check.RULES) == check.RULE_RESOURCE.read_text()


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for group in yaml.safe_load(check.RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
            assert {"summary", "description"} == rule["annotations"].keys(), rule["alert"]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed: apt-get install --no-install-recommends prometheus")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", check.DEPLOY / "prometheus" / "rules_test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alert_tests_notice_a_changed_threshold(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "enxerto.yaml").write_text(check.RULES.read_text().replace("> 0.02", "> 0.2"))
    shutil.copy(check.DEPLOY / "prometheus" / "rules_test.yaml", tmp_path)
    assert promtool("test", "rules", tmp_path / "rules_test.yaml").returncode != 0


def test_prometheus_accepts_its_configuration() -> None:
    done = promtool("check", "config", check.DEPLOY / "prometheus" / "prometheus.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
