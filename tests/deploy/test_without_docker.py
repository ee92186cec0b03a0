"""Every service that this project builds, run with its exact command as plain processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
READ_ONLY = (
    "unshare", "--mount", "--propagation", "private", "sh", "-euc",
    'mount --bind / /; mount -o remount,bind,ro /; mount -t tmpfs tmpfs /tmp; exec "$@"', "sh",
)  # fmt: skip
"""Runs a program where nothing but an empty /tmp can be written, as `read_only` and `tmpfs` have it in Compose."""
WORKERS = ("worker-1", "worker-2", "worker-3", "worker-4")


@pytest.fixture(scope="module")
def default(services: Any, entrypoints: Any, outside_type: Any, tmp_path_factory: Any) -> Iterator[Any]:
    """The default profile, started in its order, with a router that has answered."""
    running = outside_type(services, entrypoints, tmp_path_factory.mktemp("default"))
    try:
        for name in WORKERS:
            running.start(name)
        running.start("router")
        running.wait_healthy("router")
        yield running
    finally:
        running.stop()


def test_the_default_services_start_in_order_and_answer(default: Any) -> None:
    router = default.url("router", 8080)
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    answers = [httpx.post(f"{router}/v1/chat/completions", json=chat, timeout=30) for _ in range(4)]
    workers = httpx.get(f"{router}/workers", timeout=10).json()

    assert [answer.status_code for answer in answers] == [200] * 4
    assert [each["state"] for each in workers["workers"]] == ["ready"] * 4


def test_panels_ask_only_for_metrics_that_the_router_and_the_workers_serve(default: Any) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/trieway.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked = {name for each in expressions for name in re.findall(r"\b(?:trieway_|sglang:)\w+", each)}
    served = "".join(
        httpx.get(f"{default.url(name, port)}/metrics", timeout=10).text
        for name, port in (("router", 8080), ("worker-1", 30000))
    )

    assert len(asked) >= 12
    assert {name for name in asked if re.sub(r"_bucket$", "", name) not in served} == set()


def test_the_health_check_of_a_router_without_workers_fails(outside: Any) -> None:
    outside._services["router"]["depends_on"] = {}
    outside.start("router")
    health = f"{outside.url('router', 8080)}/health"

    def answers() -> bool:
        try:
            return httpx.get(health, timeout=5, verify=False).status_code > 0
        except httpx.HTTPError:
            return False

    outside.wait("router", answers, "answering")

    assert not outside.healthy("router")


def test_locusts_worker_joins_its_master(outside: Any) -> None:
    bind = str(outside.port("locust-master", 5557))
    web = str(outside.port("locust-master", 8089))
    outside.start("locust-master", "--web-host=127.0.0.1", f"--web-port={web}", f"--master-bind-port={bind}")
    outside.start("locust-worker", f"--master-port={bind}")

    def joined() -> bool:
        stats = httpx.get(f"http://127.0.0.1:{web}/stats/requests", timeout=10).json()
        return len(stats["workers"]) == 1

    outside.wait("locust-worker", joined, "known to its master")


def test_a_worker_and_the_router_run_where_nothing_can_be_written(
    services: dict[str, Any], entrypoints: Any, outside_type: Any, tmp_path: Path
) -> None:
    program = Path(sys.executable).resolve()
    if any(path.is_relative_to("/tmp") for path in (ROOT, program)):
        pytest.skip("the programs themselves are in /tmp, which is emptied here")
    if subprocess.run([*READ_ONLY, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here (it needs root)")
    written = subprocess.run([*READ_ONLY, "touch", "/opt/a-file"], capture_output=True, text=True, check=False)
    services = {**services, "router": {**services["router"], "depends_on": {}}}
    running = outside_type(services, entrypoints, tmp_path, READ_ONLY)
    try:
        for name in ("worker-1", "router"):
            running.start(name)
            running.wait_healthy(name)
        chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        answer = httpx.post(f"{running.url('router', 8080)}/v1/chat/completions", json=chat, timeout=30)
    finally:
        running.stop()

    assert "Read-only" in written.stderr
    assert answer.status_code == 200


def test_the_gpu_routers_command_and_environment_are_a_configuration_of_four_workers(
    outside: Any, services: dict[str, Any]
) -> None:
    words = outside.command("router-gpu")
    environment = {**os.environ, **services["router-gpu"]["environment"]}
    checked = subprocess.run(
        ["check-config" if word == "serve" else word for word in words],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip

    assert words[:4] == [sys.executable, "-m", "router", "serve"]
    assert re.fullmatch(r"ok: policy \w+, 4 workers.*\n", checked.stdout), checked.stderr


def test_a_probe_of_nothing_fails(outside: Any) -> None:
    assert not outside.healthy("worker-1")
