"""Fleets of stub programs: what is started, what is asked of it, and that nothing outlives a comparison."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from loadtests.comparison import Run, Traffic, compare
from loadtests.endpoint import TargetError
from loadtests.fleet import FleetPlan
from loadtests.measures import RequestResult
from loadtests.processes import ChildExited
from loadtests.workloads import Uniform, generate

PROGRAMS = Path(__file__).parent / "programs"
STUB = str(PROGRAMS / "stub_server.py")


class Watching:
    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.ended = 0

    def begin(self, name: str, requests: int) -> None:
        self.begun.append((name, requests))

    def result(self, result: RequestResult) -> None:
        self.ended += 1


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal"
    monkeypatch.setenv("STUB_JOURNAL", str(path))
    return path


def plan(*, worker: str = "", router: str = "", workers: int = 2, ready_within_s: float = 20.0) -> FleetPlan:
    return FleetPlan(
        workers=workers,
        worker_command=(sys.executable, STUB, "worker", "--mode", worker),
        router_command=(sys.executable, STUB, "router", "--mode", router),
        ready_within_s=ready_within_s,
    )


def traffic(sessions: int = 6) -> Traffic:
    return Traffic(requests=generate(Uniform(), sessions=sessions, sessions_per_s=1000.0))


def lines(journal: Path, kind: str) -> list[list[str]]:
    return [line.split() for line in journal.read_text().splitlines() if line.startswith(kind)]


def running(journal: Path) -> list[int]:
    """Stub processes that still exist; those which wait to be reaped by init count as gone."""
    return [pid for pid in (int(line[2]) for line in lines(journal, "start")) if _exists(pid)]


def _exists(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if sys.platform == "linux":
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.02)


async def test_each_policy_gets_a_fresh_router_over_flushed_caches_and_the_same_workers(journal: Path) -> None:
    runs: list[Run] = []
    watching = Watching()
    await compare(traffic(), ["round_robin", "prefix_match"], plan(), watching, runs)
    assert watching.begun == [("round_robin", 6), ("prefix_match", 6)]
    assert watching.ended == 12
    kinds = [line.split()[0] + line.split()[1] * (line[0] == "s") for line in journal.read_text().splitlines()]
    assert kinds[:5] == ["startworker", "startworker", "flush", "flush", "startrouter"]
    assert [line[1] for line in lines(journal, "start")] == ["worker", "worker", "router", "router"]
    assert len(lines(journal, "flush")) == 4
    assert {line[2] for line in lines(journal, "call")} == {"stub-model"}
    assert running(journal) == []
    first, second = runs
    assert (first.name, first.complete, first.summary.errors) == ("round_robin", True, 0)
    assert (first.workers, first.summary.imbalance_requests) == (["w0", "w1"], 1.0)
    assert first.summary.cached_token_ratio is None
    assert second.summary.cached_token_ratio == 0.8


async def test_a_worker_that_ends_at_once_is_named_with_its_last_lines(journal: Path) -> None:
    with pytest.raises(ChildExited, match=r"(?s)worker [01] ended with status 7.*no GPU here"):
        await compare(traffic(), ["round_robin"], plan(worker="exits"), Watching(), [])
    assert running(journal) == []


async def test_a_router_that_never_gets_ready_is_given_up_on(journal: Path) -> None:
    with pytest.raises(TargetError, match=r"router \(random\): .*/ready is not ready after 4 s; last answer: 503"):
        await compare(traffic(), ["random"], plan(router="never-ready", ready_within_s=4.0), Watching(), [])
    assert running(journal) == []


async def test_a_router_that_dies_during_a_run_ends_it_and_keeps_what_was_measured(journal: Path) -> None:
    runs: list[Run] = []
    with pytest.raises(ChildExited, match=r"(?s)router \(round_robin\) ended with status 3.*met its end"):
        await compare(traffic(40), ["round_robin"], plan(router="dies"), Watching(), runs)
    assert all(not run.complete for run in runs)
    assert running(journal) == []


async def test_a_program_that_cannot_be_started_says_so() -> None:
    missing = FleetPlan(worker_command=("/no/such/program",))
    with pytest.raises(OSError, match="No such file"):
        await compare(traffic(), ["random"], missing, Watching(), [])


class Comparing:
    """compare_stubs.py as a process."""

    def __init__(self, mode: str) -> None:
        root = str(Path(__file__).parents[2])
        command = [sys.executable, str(PROGRAMS / "compare_stubs.py"), STUB, mode]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def wait_for_results(self, count: int) -> None:
        for line in self.output:
            count -= line == "result\n"
            if count == 0:
                return
        raise AssertionError("it ended too early")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_stops_everything_and_keeps_what_was_measured(
    journal: Path, number: signal.Signals
) -> None:
    comparing = Comparing("hangs")
    comparing.wait_for_results(4)
    comparing.process.send_signal(number)
    rest = comparing.output.read()
    assert comparing.process.wait(timeout=30) == 0
    comparing.output.close()
    assert rest == "interrupted [(False, 4)]\n"
    assert running(journal) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_children_do_not_outlive_a_killed_parent(journal: Path) -> None:
    comparing = Comparing("hangs")
    comparing.wait_for_results(4)
    assert len(running(journal)) == 3
    comparing.process.kill()
    comparing.process.wait(timeout=30)
    comparing.output.close()
    wait_until(lambda: not running(journal))
