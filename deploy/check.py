"""Check everything that is deployed, without a cluster or a daemon: `python deploy/check.py`.

`--write` first makes the files that are made from others. Exit status 1 when anything is wrong.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from checks import containers, manifests, monitoring, settings_names, settings_page
from checks.rendering import render

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "enxerto.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "enxerto.json"
RULE_RESOURCE = ROOT / "k8s" / "base" / "prometheus-rule.yaml"
COMPOSE = DEPLOY / "compose.yaml"
SETTINGS_PAGE = ROOT / "docs" / "settings.md"
OVERLAYS = ("base", "overlays/dev", "overlays/production")

Result = tuple[str, list[str]]
"""What was looked at, and what is wrong with it."""


def results() -> Iterator[Result]:
    """Run every check."""
    for path in sorted(DEPLOY.glob("*.Dockerfile")):
        yield f"image {path.name}", containers.dockerfile_problems(path, ROOT)
    yield "compose file", containers.compose_problems(COMPOSE)
    yield "compose settings", settings_names.compose_problems(containers.load_compose(COMPOSE))
    for overlay in OVERLAYS:
        documents = render(ROOT / "k8s" / overlay)
        size = f"{overlay} ({len(documents)} documents)"
        yield f"schemas of {size}", manifests.schema_problems(documents)
        yield f"pods of {size}", manifests.pod_problems(documents)
        yield f"references of {size}", manifests.reference_problems(documents)
        yield f"settings of {size}", settings_names.manifest_problems(documents)
    rules = monitoring.rule_expressions(RULES)
    yield f"{len(rules)} alert rules", monitoring.expression_problems(RULES.name, rules)
    yield "PrometheusRule is the rule file", _rule_resource_problems()
    yield "settings page", settings_page.settings_page_problems(SETTINGS_PAGE)
    yield "dashboard", monitoring.dashboard_problems(DASHBOARD)


def _rule_resource_problems() -> list[str]:
    if RULE_RESOURCE.read_text() == monitoring.rule_resource(RULES):
        return []
    return [f"{RULE_RESOURCE.name} is stale: run python deploy/check.py --write"]


def main(arguments: list[str]) -> int:
    """Run every check and say what was checked."""
    if "--write" in arguments:
        SETTINGS_PAGE.write_text(settings_page.settings_page())
        RULE_RESOURCE.write_text(monitoring.rule_resource(RULES))
    count = 0
    for name, problems in results():
        count += len(problems)
        sys.stdout.write(f"{'FAIL' if problems else 'ok  '} {name}\n" + "".join(f"     {p}\n" for p in problems))
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
