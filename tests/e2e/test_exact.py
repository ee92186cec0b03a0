"""Exact mode through real processes: a simulated worker's KV events say what it holds, also what others sent it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from ports import free_ports

READY_S = 60.0


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    """A router in exact mode before two simulated workers, and the second worker itself."""
    first, second, router, *zmq_ports = free_ports(7)
    serve = ["router", "serve", "--port", str(router), "--exact-enabled", "true", "--policy", "prefix_match"]
    commands = []
    for port, events, replay in ((first, *zmq_ports[:2]), (second, *zmq_ports[2:])):
        config = {"publisher": "zmq", "endpoint": f"tcp://*:{events}", "replay_endpoint": f"tcp://127.0.0.1:{replay}"}
        commands.append(
            ["workers", "simulate", "--port", str(port), "--speed", "20", "--page-size", "16",
             "--kv-events-config", json.dumps(config)]
        )  # fmt: skip
        serve += ["--worker", f"http://127.0.0.1:{port}"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for argv in (*commands, serve):
            process = subprocess.Popen([sys.executable, "-m", *argv], stdin=subprocess.DEVNULL)
            processes.append(process)
        url = f"http://127.0.0.1:{router}"
        deadline = time.monotonic() + READY_S
        while not ready(url):
            assert all(process.poll() is None for process in processes)
            assert time.monotonic() < deadline, "the stack did not become ready"
            time.sleep(0.2)
        yield url, f"http://127.0.0.1:{second}"
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ready(url: str) -> bool:
    """Whether both workers are ready and their feeds were heard; sends them a prompt each, for them to publish."""
    try:
        seen = httpx.get(f"{url}/workers", timeout=5, verify=False).json()["workers"]
        for each in seen:
            body = {"input_ids": list(range(7_000_000, 7_000_032)), "sampling_params": {"max_new_tokens": 1}}
            httpx.post(f"{each['url']}/flush_cache", timeout=5)
            httpx.post(f"{each['url']}/generate", json=body, timeout=5)
    except (httpx.HTTPError, KeyError):
        return False
    return len(seen) == 2 and all(each["kv_events"] and each["kv_events"]["usable"] for each in seen)


def generate(url: str, ids: list[int]) -> httpx.Response:
    body = {"input_ids": ids, "sampling_params": {"max_new_tokens": 2}}
    return httpx.post(f"{url}/generate", json=body, headers={"x-trieway-explain": "1"}, timeout=30)


def test_a_prefix_that_somebody_else_put_there_is_found(urls: tuple[str, str]) -> None:
    router, second = urls
    ids = list(range(1_000, 2_600))
    generate(second, ids)
    deadline = time.monotonic() + READY_S
    while True:
        before = lookups(router)
        answer = generate(router, [*ids, *range(64)])
        found = answer.json()["meta_info"]["cached_tokens"]
        if answer.headers["x-trieway-worker"] == "w2" and int(answer.headers["x-trieway-match-tokens"]) > 0:
            break
        assert time.monotonic() < deadline, "the router never learned what the worker holds"
        generate(second, ids)
        ids = [each + 10_000 for each in ids]
        generate(second, ids)
        time.sleep(0.1)

    assert lookups(router) > before
    assert int(answer.headers["x-trieway-match-tokens"]) == found
    assert found >= 1_568


def lookups(router: str) -> float:
    metrics = httpx.get(f"{router}/metrics").text
    lines = [line for line in metrics.splitlines() if line.startswith('trieway_exact_lookups_total{result="known"}')]
    return float(lines[0].rpartition(" ")[2])


def test_workers_and_metrics_show_the_feeds(urls: tuple[str, str]) -> None:
    router, _ = urls
    seen = httpx.get(f"{router}/workers").json()["workers"]
    metrics = httpx.get(f"{router}/metrics").text

    assert all(each["kv_events"]["messages"] > 0 and each["kv_events"]["gaps"] == 0 for each in seen)
    assert 'trieway_kv_events_usable{worker="w1"} 1.0' in metrics
