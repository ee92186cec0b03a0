"""The processes of a benchmark: started on one core each, ready when they answer a model call, ended at the end.

Called by __main__ and endurance. Not here: which routers (candidates), what is measured.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from candidates import ROOT, Candidate

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


class Router:
    """A started candidate, pinned to the first core."""

    def __init__(self, candidate: Candidate, process: subprocess.Popen[bytes], port: int) -> None:
        self.candidate = candidate
        self.process = process
        self.port = port

    def _pids(self) -> list[int]:
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += [int(child) for child in task.read_text().split()]
        return found

    def cpu_s(self) -> float:
        """User and system time of all its processes, in seconds."""
        total = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        total_kb = 0
        for pid in self._pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total_kb += int(line.split()[1])
        return total_kb / 1024


def free_port(span: int) -> int:
    """The first of `span` consecutive ports that are free now."""
    for first in range(21_000, 30_000, span + 3):
        try:
            for port in range(first, first + span):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise SystemExit("no free ports between 21000 and 30000")


def wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a model call is answered: every router says something else by its ready routes."""
    body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}).encode()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    call = urllib.request.Request(url, body, {"content-type": "application/json"})
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(call, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"{url} was not ready within 60 s:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def running(name: str, argv: Sequence[str], core: int, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process on one core for the time of a block."""
    log = folder / f"{name.replace(' ', '-')}.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
        try:
            yield process, log
        finally:
            for how in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, how)
                    process.wait(10)
                    break
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue


def compile_programs(work: Path) -> None:
    for name in ("load", "backend"):
        try:
            subprocess.run(["cc", "-O2", "-o", str(work / name), str(HERE / f"{name}.c")], check=True)
        except FileNotFoundError:
            raise SystemExit("There is no C compiler: `cc` was not found (Debian: apt install gcc).") from None
