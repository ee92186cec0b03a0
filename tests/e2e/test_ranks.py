"""Ranks, flushes and usage through real processes: a simulated server with two data-parallel ranks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ports import free_port

READY_S = 60.0


def until(url: str, holds: Any, process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        try:
            answer = httpx.get(url, timeout=5, verify=False)
            if holds(answer):
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    return pytest.fail(f"{url} was not as expected within {READY_S} s")


@pytest.fixture(scope="module")
def router() -> Iterator[str]:
    """A router before one simulated server with two ranks, both ready."""
    ports = free_port(), free_port()
    simulate = ["simulate", "--dp-size", "2", "--speed", "20", "--page-size", "16", "--port", str(ports[0])]
    serve = ["serve", "--port", str(ports[1]), "--worker", f"gpu=http://127.0.0.1:{ports[0]}"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for argv in (["workers", *simulate], ["router", *serve, "--load-interval-s", "0.1"]):
            process = subprocess.Popen([sys.executable, "-m", *argv], stdin=subprocess.DEVNULL)
            processes.append(process)
        url = f"http://127.0.0.1:{ports[1]}"
        ready = ["gpu#0", "gpu#1"]
        until(
            f"{url}/workers",
            lambda answer: [each["id"] for each in answer.json()["workers"] if each["state"] == "ready"] == ready,
            processes[1],
        )
        yield url
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def generate(router: str, text: str) -> tuple[str, int, int]:
    """Worker chosen, rank that served, cached tokens."""
    answer = httpx.post(
        f"{router}/generate",
        json={"text": text, "sampling_params": {"max_new_tokens": 2}},
        headers={"x-trieway-explain": "1"},
    )
    meta = answer.json()["meta_info"]
    return answer.headers["x-trieway-worker"], meta["dp_rank"], meta["cached_tokens"]


def test_the_rank_that_was_chosen_serves_and_keeps_its_prefixes(router: str) -> None:
    prompts = [f"document {number}: " + "some words " * 200 for number in range(14)]  # idle ranks are chosen by chance
    first = [generate(router, prompt) for prompt in prompts]
    again = [generate(router, prompt) for prompt in prompts]

    assert {worker for worker, _, _ in first} == {"gpu#0", "gpu#1"}
    assert all(worker == f"gpu#{rank}" for worker, rank, _ in first + again)
    assert [worker for worker, _, _ in again] == [worker for worker, _, _ in first]
    assert all(cached > 400 for _, _, cached in again)


def test_streams_of_a_client_that_asks_for_no_usage_are_counted_all_the_same(router: str) -> None:
    body = {"messages": [{"role": "user", "content": "count me " * 200}], "max_tokens": 4, "stream": True}
    texts = [httpx.post(f"{router}/v1/chat/completions", json=body).text for _ in range(2)]
    metrics = httpx.get(f"{router}/metrics").text

    assert all('"usage":{' not in text and text.endswith("data: [DONE]\n\n") for text in texts)
    cached = [line for line in metrics.splitlines() if line.startswith("trieway_cached_tokens_total{")]
    assert sum(float(line.rpartition(" ")[2]) for line in cached) > 400


def test_a_flush_through_the_router_is_forgotten_there_too(router: str) -> None:
    text = "flush me " * 300
    generate(router, text)
    warm = generate(router, text)
    flushed = httpx.post(f"{router}/flush_cache", params={"timeout": 5})
    answer = httpx.post(
        f"{router}/generate",
        json={"text": text, "sampling_params": {"max_new_tokens": 2}},
        headers={"x-trieway-explain": "1"},
    )

    assert warm[2] > 400
    assert (flushed.status_code, flushed.text.startswith("Cache flushed")) == (200, True)
    assert answer.headers["x-trieway-match-tokens"] == "0"
    assert answer.json()["meta_info"]["cached_tokens"] == 0


def test_loads_and_infos_of_both_ranks_are_told(router: str) -> None:
    loads = httpx.get(f"{router}/v1/loads").json()["loads"]
    info = httpx.get(f"{router}/server_info").json()
    workers = httpx.get(f"{router}/workers").json()["workers"]

    assert [(load["worker"], load["dp_rank"]) for load in loads] == [("gpu", 0), ("gpu", 1)]
    assert len(info["internal_states"]) == 2
    assert [worker["capacity_tokens"] for worker in workers] == [699_103] * 2
    assert all(worker["load"]["age_s"] < 30 for worker in workers)
    assert json.loads(httpx.get(f"{router}/get_model_info").text)["model_path"] == "simulated"
