"""Prometheus scrapes what runs, and Grafana finds what it is to show."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

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


def test_prometheus_accepts_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (Debian: prometheus)")
    checked = subprocess.run(
        [promtool, "check", "config", str(DEPLOY / "prometheus/prometheus.yml")], capture_output=True, check=False
    )

    assert checked.returncode == 0, checked.stderr


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
