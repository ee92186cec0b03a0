"""Locust as people start it, in processes of its own: headless, --processes, its distributed mode and its web UI.

In processes because Locust patches sockets and threads for gevent when it is imported.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LOCUSTFILE = "loadtests/locustfile.py"
OPEN_LOOP = "loadtests/locustfile_open.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": ""}


@contextmanager
def locust(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Locust process; killed at the end with all it started, where it still runs."""
    command = [sys.executable, "-m", "locust", *map(str, arguments), "--loglevel", "WARNING"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def eventually(answer: Callable[[], Any], within_s: float = 30.0) -> Any:
    """What `answer` returns once it is true; failures to connect count as false."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        try:
            if found := answer():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a simulated worker, 50 times as fast as its GPU."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "workers", "simulate", "--port", str(port), "--speed", "50"]
    process = subprocess.Popen([*command, "--log-level", "warning"], cwd=ROOT, env=ENVIRONMENT)
    try:
        eventually(lambda: httpx.get(f"{url}/health", verify=False).status_code == 200)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_master_without_a_target_says_so_and_sends_its_workers_home() -> None:
    """Workers give a silent master 60 s; here they must end because it tells them to."""
    port = free_port()
    common = ("-f", LOCUSTFILE, "--headless", "--host", "http://127.0.0.1:1", "--master-port", port)
    with (
        locust(*common, "--master", "-t", "5s", "--master-bind-port", port) as master,
        locust(*common, "--worker") as worker,
    ):
        _, said = master.communicate(timeout=60)
        worker.communicate(timeout=30)

    assert master.returncode == 1
    assert said.count("Error: nothing answers at http://127.0.0.1:1") == 1
    assert "trieway up" in said
    assert worker.returncode == 0


def ended(folder: Path, kind: str = "") -> int:
    """Calls that a running test with `--csv FOLDER/locust` shows so far, of one kind or of all."""
    path = folder / "locust_stats.csv"
    counts = {row["Name"]: int(row["Request Count"]) for row in (rows(path) if path.exists() else [])}
    return counts.get(f"/v1/chat/completions {kind}" if kind else "Aggregated", 0)


def test_headless_users_stream_and_report_ttft_itl_speed_and_cached_share(server: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with locust("-f", LOCUSTFILE, "--headless", "--host", server, "-u", 16, "-r", 16, "--think-scale", 0,
                "--csv", tmp_path / "locust", "--results-json", results) as process:  # fmt: skip
        eventually(lambda: ended(tmp_path, "multi_turn") > 2 and ended(tmp_path, "agent_loop") > 2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    kinds = {(row["Type"], row["Name"]) for row in rows(tmp_path / "locust_stats.csv")}
    for name in ("TTFT ms", "ITL us", "tok/s", "cached %"):
        assert (name, "multi_turn") in kinds
    whole, *by_kind = msgspec.json.decode(results.read_bytes())["runs"]
    assert whole["policy"] == "all"
    assert whole["errors"] == 0
    assert whole["ttft_s"]["p50"] < whole["e2e_s"]["p50"]
    assert 0 < whole["cached_token_ratio"] < 1
    assert sum(run["requests"] for run in by_kind) == whole["requests"]


def test_processes_play_different_sessions_and_none_of_their_results_is_lost(server: str, tmp_path: Path) -> None:
    results, port = tmp_path / "results.csv", free_port()
    with locust("-f", LOCUSTFILE, "--headless", "--host", server, "--processes", 2, "--master-bind-port", port,
                "--master-port", port, "-u", 4, "-r", 4, "--think-scale", 0, "--results-csv", results,
                "--csv", tmp_path / "locust", "OneOffUser") as process:  # fmt: skip
        eventually(lambda: ended(tmp_path) >= 30)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    sessions = [row["session_id"] for row in rows(results)]
    assert len(set(sessions)) == len(sessions) > 30, "what ended since the last periodic report is in it"
    assert {int(name.removeprefix("uniform-")) // 1_000_000 for name in sessions} == {0, 1}


def test_an_open_loop_over_two_workers_sends_each_request_of_a_trace_once_and_ends(server: str, tmp_path: Path) -> None:
    trace, results = tmp_path / "trace.jsonl", tmp_path / "results.csv"
    line = {"messages": [{"role": "user", "content": "Why?"}], "expected_output_tokens": 3, "gap_ms": 20}
    calls = [{**line, "session_id": f"s{index}", "turn": turn, "arrival_ms": 40 * index}
             for index in range(12) for turn in range(2)]  # fmt: skip
    trace.write_bytes(b"\n".join(map(msgspec.json.encode, calls)))
    port = free_port()
    common = ("-f", OPEN_LOOP, "--headless", "--host", server, "--trace", trace)
    with (
        locust(*common, "--master", "--master-bind-port", port, "--expect-workers", 2, "--results-csv",
               results) as master,
        locust(*common, "--worker", "--master-port", port) as first,
        locust(*common, "--worker", "--master-port", port) as second,
    ):  # fmt: skip
        _, errors = master.communicate(timeout=60)
        first.communicate(timeout=30)
        second.communicate(timeout=30)

    assert (master.returncode, first.returncode, second.returncode) == (0, 0, 0), errors
    sent = Counter((row["session_id"], row["turn"], row["error"]) for row in rows(results))
    assert sent == Counter((call["session_id"], str(call["turn"]), "") for call in calls)


def test_the_web_ui_starts_a_test_and_shows_our_rows(server: str) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with locust("-f", LOCUSTFILE, "--host", server, "--web-host", "127.0.0.1", "--web-port", port) as process:
        assert "Locust" in eventually(lambda: httpx.get(url, verify=False)).text
        swarm = {"user_count": 3, "spawn_rate": 3, "host": server, "think_scale": 0}
        assert httpx.post(f"{url}/swarm", data=swarm).json()["success"] is True
        eventually(lambda: "TTFT ms" in httpx.get(f"{url}/stats/requests", verify=False).text)
        ours = eventually(lambda: httpx.get(f"{url}/trieway", verify=False).json()["runs"][0]["requests"] > 3)
        httpx.get(f"{url}/stop")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)

    assert ours
    assert "Traceback" not in errors
    assert "requests by kind of traffic" in output


def test_a_trace_that_is_not_there_is_said_before_anything_starts(server: str) -> None:
    with locust("-f", OPEN_LOOP, "--headless", "--host", server, "--trace", "/no/such.jsonl") as process:
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "/no/such.jsonl does not exist" in errors
    assert "Traceback" not in errors
