"""Prometheus scrapes what runs, and Grafana finds what it is to show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from documented import anchors

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana/dashboards/trieway.json"


def test_prometheus_scrapes_every_router_and_worker_of_the_compose_file(
    services: dict[str, Any], load_yaml: Any
) -> None:
    jobs = load_yaml(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"]
    scraped = {(name, found["port"]) for job in jobs for found in job["dns_sd_configs"] for name in found["names"]}

    assert scraped == {
        (name, 8080 if name.startswith("router") else 30000)
        for name in services
        if name.startswith(("router", "worker-", "sglang-"))
    }


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed here (Debian: prometheus)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_alerts_fire_on_trouble_and_stay_quiet_without() -> None:
    """What promtool calls unit tests: made-up series in, alerts out."""
    tested = promtool("test", "rules", str(DEPLOY / "prometheus/alerts_test.yml"))

    assert tested.returncode == 0, tested.stderr + tested.stdout


def test_alerts_ask_for_documented_metrics_and_name_a_section_that_says_what_to_do(load_yaml: Any) -> None:
    [group] = load_yaml(DEPLOY / "prometheus/alerts.yml")["groups"]
    table = (DEPLOY.parent / "docs/metrics.md").read_text("utf-8")
    asked = {name for rule in group["rules"] for name in re.findall(r"\b(?:trieway|process)_\w+", rule["expr"])}
    runbooks = {rule["annotations"]["runbook"] for rule in group["rules"]}

    assert [name for name in asked if f"| `{name.removesuffix('_bucket')}` |" not in table] == []
    pages = {each: anchors(DEPLOY.parent / each.partition("#")[0]) for each in runbooks}

    assert [each for each, known in pages.items() if each.partition("#")[2] not in known] == []


def test_prometheus_accepts_its_configuration() -> None:
    checked = promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))

    assert checked.returncode == 0, checked.stderr


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    filled = [query.replace("$__rate_interval", "1m").replace("$service", ".*") for query in queries]
    rules = [{"record": f"query_{i}", "expr": query} for i, query in enumerate(filled)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    checked = promtool("check", "rules", str(file))

    assert checked.returncode == 0, checked.stderr + checked.stdout
    assert f"{len(queries)} rules found" in checked.stdout


def test_grafana_finds_its_data_source_and_dashboards(services: dict[str, Any], load_yaml: Any) -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    source = load_yaml(provisioning / "datasources/prometheus.yml")["datasources"][0]
    folder = load_yaml(provisioning / "dashboards/trieway.yml")["providers"][0]["options"]["path"]
    dashboard = json.loads(DASHBOARD.read_text())
    used = {panel["datasource"]["uid"] for panel in dashboard["panels"] if "datasource" in panel}

    assert source["url"] == "http://prometheus:9090"
    assert used == {source["uid"]}
    assert f"./deploy/grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/trieway.json"
