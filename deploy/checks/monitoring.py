"""Alert rules and the dashboard: every expression parses; the PrometheusRule is the rule file."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

_VARIABLES = {"$__rate_interval": "5m", "$__interval": "5m", "$__range": "1h"}


def rule_resource(rules: Path) -> str:
    """The PrometheusRule with the groups of a rule file, as YAML."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "enxerto"},
        "spec": yaml.safe_load(rules.read_text()),
    }
    head = f"# Made from deploy/prometheus/rules/{rules.name} by deploy/check.py --write; never edited.\n"
    return head + yaml.safe_dump(document, sort_keys=False, width=1000)


def rule_expressions(rules: Path) -> dict[str, str]:
    """Expression of each alert and recording rule, by name."""
    groups = yaml.safe_load(rules.read_text())["groups"]
    return {rule.get("alert") or rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those inside of rows too."""
    for panel in dashboard.get("panels", []):
        yield panel
        yield from panel.get("panels", [])


def dashboard_expressions(dashboard: dict[str, Any]) -> dict[str, str]:
    """PromQL of each target, by `panel/ref`; Grafana's variables replaced by values that parse."""
    found = {}
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            found[f"{panel['title']}/{target['refId']}"] = substitute(target["expr"])
    return found


def substitute(expression: str) -> str:
    """Put values in the place of Grafana's variables."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?\w+\}?", ".*", expression)


def metric_names(expression: str) -> set[str]:
    """Names of the series that an expression reads."""
    names = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            names.add(node.name)
            return
        for attribute in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
            child = getattr(node, attribute, None)
            for part in child if isinstance(child, list) else [child]:
                if part is not None and not isinstance(part, str | float | int):
                    visit(part)

    visit(promql_parser.parse(expression))
    return {name for name in names if name}


def expression_problems(where: str, expressions: dict[str, str]) -> list[str]:
    """Expressions that do not parse or read no series."""
    problems = []
    for name, expression in expressions.items():
        try:
            if not metric_names(expression):
                problems.append(f"{where}: {name}: reads no series")
        except ValueError as error:
            problems.append(f"{where}: {name}: {error}")
    return problems


def dashboard_problems(path: Path) -> list[str]:
    """Panels that overlap, share an id, name no data source or have no title, unit or query."""
    dashboard = json.loads(path.read_text())
    problems = expression_problems(path.name, dashboard_expressions(dashboard))
    problems += [f"{path.name}: no {key}" for key in ("uid", "title", "schemaVersion") if not dashboard.get(key)]
    seen: set[int] = set()
    cells: dict[tuple[int, int], str] = {}
    for panel in panels(dashboard):
        title = panel.get("title") or f"panel {panel.get('id')}"
        if panel.get("id") in seen:
            problems.append(f"{path.name}: {title}: id {panel['id']} is taken")
        seen.add(panel.get("id", -1))
        grid = panel["gridPos"]
        columns, rows = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
        for cell in itertools.product(columns, rows):
            if cell[0] >= 24 or cells.setdefault(cell, title) != title:
                problems.append(f"{path.name}: {title}: overlaps {cells.get(cell, 'the edge')}")
                break
        if panel["type"] == "row":
            continue
        if not panel.get("targets"):
            problems.append(f"{path.name}: {title}: no query")
        if panel.get("datasource", {}).get("uid") != "${datasource}":
            problems.append(f"{path.name}: {title}: the data source must be the dashboard's variable")
        if "unit" not in panel.get("fieldConfig", {}).get("defaults", {}):
            problems.append(f"{path.name}: {title}: no unit")
    return problems
