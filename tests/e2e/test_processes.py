"""`trieway serve --processes 2`: one router to its clients and operators, whatever process a connection lands on."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from pids import alive, children, until
from ports import free_port

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT, /proc"), pytest.mark.slow]
CHAT = "/v1/chat/completions"
DEADLINE_S = 60.0
PROCESSES = 2


@dataclass
class Fleet:
    """Simulated workers by name, and a router in front of the first two of them."""

    url: str
    router: subprocess.Popen[bytes]
    workers: dict[str, tuple[str, subprocess.Popen[bytes]]]
    log: Path

    def children(self) -> dict[int, int]:
        """Pids of the router's processes by their numbers."""
        pids = children(self.router.pid)
        arguments = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in pids}
        return {int(argv[-2]): pid for pid, argv in arguments.items() if b"router.processes.child" in argv}

    def leader(self) -> int:
        """The number of the process that was last said to lead."""
        said = [line for line in self.log.read_text().splitlines() if " leads: " in line]
        return int(said[-1].rpartition("process ")[2].split()[0])

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """A request on a connection of its own."""
        return httpx.request(method, self.url + path, json=body, timeout=30)

    def chat(self, text: str, **headers: str) -> httpx.Response:
        """A model call on a connection of its own."""
        body = {"model": "simulated", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
        return httpx.post(self.url + CHAT, json=body, timeout=30, headers={"x-trieway-explain": "1", **headers})

    def metric(self, name: str, **labels: str) -> dict[str, float]:
        """Samples of this name by their labels as text; those with these labels."""
        found: dict[str, float] = {}
        for line in self.ask("GET", "/metrics").text.splitlines():
            key, _, value = line.rpartition(" ")
            wanted = all(f'{label}="{text}"' in key for label, text in labels.items())
            if key.partition("{")[0] == name and wanted:
                found[key] = float(value)
        return found

    def total(self, name: str, **labels: str) -> float:
        return sum(self.metric(name, **labels).values())

    def serving(self) -> int:
        try:
            return int(self.total("trieway_processes"))
        except httpx.HTTPError:
            return 0

    def states(self) -> dict[str, str]:
        return {each["id"]: each["state"] for each in self.ask("GET", "/workers").json()["workers"]}


def start_worker(port: int, speed: float) -> subprocess.Popen[bytes]:
    argv = ["workers", "simulate", "--port", str(port), "--speed", str(speed), "--log-level", "warning"]
    return subprocess.Popen([sys.executable, "-m", *argv], stdin=subprocess.DEVNULL)


def make_fleet(folder: Path, *options: str, speed: float = 20.0) -> Iterator[Fleet]:
    ports = {name: free_port() for name in ("one", "two", "three")}
    workers = {name: (f"http://127.0.0.1:{port}", start_worker(port, speed)) for name, port in ports.items()}
    port, log = free_port(), folder / "router.log"
    argv = ["router", "serve", "--port", str(port), "--processes", str(PROCESSES), *options]
    for name in ("one", "two"):
        argv += ["--worker", f"{name}={workers[name][0]}"]
    router: subprocess.Popen[bytes] | None = None
    try:
        with log.open("wb") as out:
            router = subprocess.Popen([sys.executable, "-m", *argv], stdin=subprocess.DEVNULL, stderr=out)
        fleet = Fleet(f"http://127.0.0.1:{port}", router, workers, log)
        until(lambda: fleet.serving() == PROCESSES, "all processes serve")
        until(lambda: set(fleet.states().values()) == {"ready"}, "both workers are ready")
        yield fleet
    finally:
        if router is not None:
            router.kill()
            router.wait()
        for _, process in workers.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Shared by tests that leave it as it was."""
    yield from make_fleet(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """For a test that breaks something."""
    decisions = ("--decision-log-dir", str(tmp_path / "decisions"), "--decision-log-flush-interval-s", "0.1")
    yield from make_fleet(tmp_path, *decisions)


def test_connections_are_answered_by_all_processes_and_counted_once(fleet: Fleet) -> None:
    before = fleet.total("trieway_requests_total")
    served = fleet.metric("trieway_process_requests_total")
    for index in range(24):
        assert fleet.chat(f"count {index}").status_code == 200

    until(lambda: fleet.total("trieway_requests_total") == before + 24, "every request is counted")
    after = fleet.metric("trieway_process_requests_total")
    by_process = {name: count - served.get(name, 0.0) for name, count in after.items()}
    assert sum(by_process.values()) == 24
    assert len([count for count in by_process.values() if count]) == PROCESSES


def test_counters_are_the_same_on_every_connection(fleet: Fleet) -> None:
    fleet.chat("once more")
    totals = [fleet.total("trieway_requests_total") for _ in range(12)]

    assert totals == sorted(totals)
    assert totals[-1] - totals[0] <= 1  # the request before may still be on its way


def test_a_prefix_that_one_process_placed_is_matched_by_all(fleet: Fleet) -> None:
    prompt = "the same long beginning of every one of these prompts " * 60
    first = fleet.chat(prompt).headers["x-trieway-worker"]

    def matched() -> bool:
        served = fleet.metric("trieway_process_requests_total")
        answers = [fleet.chat(prompt) for _ in range(12)]
        after = fleet.metric("trieway_process_requests_total")
        assert {answer.headers["x-trieway-worker"] for answer in answers} == {first}
        both = all(after[name] > served.get(name, 0.0) for name in after)
        return both and all(int(answer.headers["x-trieway-match-tokens"]) > 500 for answer in answers)

    until(matched, "every process matches the prefix on the worker that has it")


def test_any_process_explains_any_request(fleet: Fleet) -> None:
    ids = [fleet.chat(f"explain {index}").headers["x-request-id"] for index in range(8)]

    def weighed(name: str) -> bool:
        answer = fleet.ask("GET", f"/explain/{name}")
        return answer.status_code == 200 and answer.json()["weighed"] and answer.json()["state"] == "ended"

    until(lambda: all(weighed(name) for name in ids), "all requests are explained")


def test_a_session_has_one_arm_in_all_processes_and_all_its_requests_are_tallied(fleet: Fleet) -> None:
    wanted = {
        "arms": ["control=round_robin", "treatment=expected_ttft"], "warmup_s": 0, "isolation": "split",
    }  # fmt: skip
    assert fleet.ask("POST", "/experiment", wanted).status_code == 201
    try:
        arms: dict[str, set[str]] = {}
        for index in range(24):
            session = f"s{index % 6}"
            name = fleet.chat(f"arm {index}", **{"x-session-id": session}).headers["x-request-id"]
            until(lambda name=name: fleet.ask("GET", f"/explain/{name}").status_code == 200, "it is known")  # type: ignore[misc]
            until(lambda name=name: fleet.ask("GET", f"/explain/{name}").json()["outcome"] is not None, "it ended")  # type: ignore[misc]
            arms.setdefault(session, set()).add(fleet.ask("GET", f"/explain/{name}").json()["outcome"]["arm"])
        running = fleet.ask("GET", "/experiment").json()["running"]
    finally:
        stopped = fleet.ask("DELETE", "/experiment")

    assert all(len(of_session) == 1 and None not in of_session for of_session in arms.values())
    assert sum(arm["requests"] for arm in running["arms"]) == 24
    assert stopped.status_code == 200
    assert {fleet.ask("GET", "/experiment").json()["running"] for _ in range(6)} == {None}


def test_a_worker_added_through_one_connection_is_there_on_all_and_a_drained_one_on_none(own_fleet: Fleet) -> None:
    fleet = own_fleet
    url = fleet.workers["three"][0]
    added = fleet.ask("POST", "/workers", {"id": "three", "url": url})
    known = [fleet.ask("GET", "/ready").json()["workers"] for _ in range(16)]
    until(lambda: fleet.states()["three"] == "ready", "the new worker is ready")
    drained = [fleet.ask("POST", f"/workers/{name}/drain").status_code for name in ("one", "two")]
    answers = [fleet.chat(f"new {index}") for index in range(16)]

    assert added.status_code == 201
    assert known == [3] * 16
    assert drained == [200, 200]
    assert [answer.status_code for answer in answers] == [200] * 16
    assert {answer.headers["x-trieway-worker"] for answer in answers} == {"three"}


def test_the_decision_log_is_one_file_with_the_requests_of_all_processes(own_fleet: Fleet) -> None:
    folder = own_fleet.log.parent / "decisions"
    for index in range(16):
        own_fleet.chat(f"log {index}")

    def lines() -> list[Any]:
        files = list(folder.glob("*.zst"))
        data = b"".join(zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() for file in files)
        return [json.loads(line) for line in data.splitlines()]

    until(lambda: len(lines()) == 17, "a head and sixteen requests")
    assert len(list(folder.glob("*.zst"))) == 1


def test_a_reload_reaches_all_processes(tmp_path: Path) -> None:
    settings = tmp_path / "trieway.toml"
    settings.write_text("[dispatch]\ntotal_timeout_s = 60\n")
    with contextmanager(make_fleet)(tmp_path, "--config", str(settings)) as fleet:
        before = {fleet.chat(f"before {index}").status_code for index in range(12)}
        settings.write_text("[dispatch]\ntotal_timeout_s = 0.000001\n")
        fleet.router.send_signal(signal.SIGHUP)
        until(
            lambda: {fleet.chat(f"after {index}").status_code for index in range(12)} == {504},
            "all processes have the new limit",
        )
        reloads = fleet.total("trieway_config_reloads_total", result="applied")

        assert before == {200}
        assert 1 <= reloads <= 2  # by the signal, and if the leader looked at its file before that, too


class Load:
    """Clients that ask one thing after another, each on a connection that it keeps until it breaks."""

    def __init__(self, fleet: Fleet, clients: int) -> None:
        self.answered = [0] * clients
        self.broken = [0] * clients
        self.wrong: list[str] = []
        self._fleet = fleet
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(index,)) for index in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, index: int) -> None:
        body = {"model": "simulated", "messages": [{"role": "user", "content": f"client {index}"}], "max_tokens": 8}
        while not self._stop.is_set():
            with httpx.Client(timeout=30) as client:
                try:
                    while not self._stop.is_set():
                        answer = client.post(self._fleet.url + CHAT, json=body)
                        if answer.status_code != 200:
                            self.wrong.append(answer.text)
                        self.answered[index] += 1
                except httpx.TransportError:
                    self.broken[index] += 1


def test_a_killed_process_costs_its_own_connections_once_and_comes_back(own_fleet: Fleet) -> None:
    fleet = own_fleet
    with Load(fleet, 12) as load:
        until(lambda: min(load.answered) >= 2, "all clients are answered")
        victim = fleet.children()[1 - fleet.leader()]
        os.kill(victim, signal.SIGKILL)
        until(lambda: fleet.total("trieway_process_restarts_total") == 1, "its end was noticed")
        until(lambda: fleet.serving() == PROCESSES, "it is back")
        seen = list(load.answered)
        until(lambda: all(now > then for now, then in zip(load.answered, seen, strict=True)), "all are answered again")

    assert load.wrong == []
    assert max(load.broken) <= 1
    assert 0 < sum(load.broken) < 12
    assert victim not in fleet.children().values()
    assert fleet.total("trieway_in_flight_requests") == 0


def test_when_the_leader_is_killed_another_probes_and_counters_do_not_fall(own_fleet: Fleet) -> None:
    fleet = own_fleet
    for index in range(12):
        fleet.chat(f"before {index}")
    until(lambda: fleet.total("trieway_requests_total") == 12, "all are counted")
    before = fleet.leader()
    os.kill(fleet.children()[before], signal.SIGKILL)
    until(lambda: fleet.leader() != before, "another leads")
    fleet.workers["two"][1].kill()
    until(lambda: fleet.states()["two"] == "degraded", "the new leader finds the worker gone")
    until(lambda: fleet.serving() == PROCESSES, "the old one is back")
    second = fleet.leader()
    os.kill(fleet.children()[second], signal.SIGKILL)
    until(lambda: fleet.leader() == before, "the first leads again")

    assert fleet.total("trieway_requests_total") == 12
    assert fleet.states() == {"one": "ready", "two": "degraded"}


def test_requests_that_all_processes_hold_go_when_one_of_a_single_process_ends(tmp_path: Path) -> None:
    """The worker would compute for a minute; then the client leaves for whom it does, in one of the processes."""
    long = {"model": "simulated", "messages": [{"role": "user", "content": "word " * 100_000}], "stream": True}
    statuses: list[int] = []
    count = 12
    with contextmanager(make_fleet)(tmp_path, "--hold-least-s", "600", speed=0.2) as fleet:
        assert fleet.ask("POST", "/workers/two/drain").status_code == 200
        first = http.client.HTTPConnection(fleet.url.removeprefix("http://"), timeout=30)
        first.request("POST", CHAT, json.dumps(long), {"content-type": "application/json"})
        until(lambda: fleet.ask("GET", "/queue").json()["in_flight"] == 1, "the first is sent to the worker")
        before = fleet.metric("trieway_process_requests_total")
        threads = [
            threading.Thread(target=lambda text=f"hello {index}": statuses.append(fleet.chat(text).status_code))
            for index in range(count)
        ]
        for thread in threads:
            thread.start()
        until(lambda: fleet.ask("GET", "/queue").json()["held"]["held"] == count, "all others are held")
        answered = list(statuses)
        first.close()
        for thread in threads:
            thread.join()
        after = fleet.metric("trieway_process_requests_total")

    assert answered == []
    assert statuses == [200] * count
    assert all(after[name] > before.get(name, 0.0) for name in after)
    assert len(after) == PROCESSES


def test_a_router_told_to_stop_finishes_its_streams_in_all_processes(own_fleet: Fleet) -> None:
    fleet = own_fleet
    for url, _ in fleet.workers.values():
        httpx.post(f"{url}/simulated/faults", json={"kind": "slow_bytes", "bytes_per_s": 3000.0}).raise_for_status()
    body = {"model": "simulated", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 40}
    ends: list[str] = []
    begun = threading.Semaphore(0)

    def stream() -> None:
        with httpx.stream("POST", fleet.url + CHAT, json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            begun.release()
            ends.append([line for line in lines if line][-1])

    threads = [threading.Thread(target=stream) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=DEADLINE_S)
    pids = list(fleet.children().values())
    fleet.router.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()

    assert ends == ["data: [DONE]"] * 8
    assert fleet.router.wait(DEADLINE_S) == -signal.SIGTERM
    assert not [pid for pid in pids if alive(pid)]


def test_nothing_outlives_a_killed_parent(own_fleet: Fleet) -> None:
    pids = list(own_fleet.children().values())
    own_fleet.router.kill()

    until(lambda: not [pid for pid in pids if alive(pid)], "the children have ended")
    assert len(pids) == PROCESSES


def test_a_start_that_cannot_be_says_why_once_and_leaves_nothing(tmp_path: Path) -> None:
    argv = ["router", "serve", "--port", str(free_port()), "--processes", "2", "--worker", "localhost"]
    ended = subprocess.run([sys.executable, "-m", *argv], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert ended.stderr.count("Error: ") == 1
    assert "http://127.0.0.1:30000" in ended.stderr
