"""Starting a CPU server: what it says when it cannot, waiting, stopping all of it; over a stand-in for Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from workers.sglang.cpu.__main__ import main
from workers.sglang.cpu.flavours import FLAVOURS, GUARDED, OPEN
from workers.sglang.cpu.server import CpuServer, ServerFailed, cpu_environment, free_ports

ANSWERS = """
import http.server, subprocess, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
print("child", subprocess.Popen(["sleep", "300"]).pid, flush=True)
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Healthy).serve_forever()
"""
FAILS = "import sys; print('no such device'); sys.exit(3)"


@pytest.fixture
def environment(tmp_path: Path) -> Callable[[str], Path]:
    """An environment as setup.sh leaves it, whose Python runs the given program whatever it is asked to run."""

    def make(program: str) -> Path:
        python = tmp_path / "env" / "bin" / "python"
        python.parent.mkdir(parents=True)
        (tmp_path / "program.py").write_text(program)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "program.py"} "$@"\n')
        python.chmod(0o755)
        (tmp_path / "env" / ".ready").write_text("x")
        return tmp_path / "env"

    return make


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def gone(pid: int) -> None:
    """Waits for the end of a process that has been told to end."""
    until_s = time.monotonic() + 30
    while alive(pid) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not alive(pid)


def test_a_server_is_ready_when_it_answers_and_takes_its_children_along(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    server = CpuServer(OPEN, environment(ANSWERS), tmp_path / "logs" / "server.log")
    try:
        server.start()
        server.wait_ready(within_s=30)
        child = int(server.log.read_text().split()[1])
        assert alive(child)
    finally:
        server.stop()

    gone(child)
    server.stop()


def test_told_to_stop_the_command_takes_everything_along(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    log = tmp_path / "server.log"
    argv = ["--environment", str(environment(ANSWERS)), "--port", str(free_ports(1)), "--log", str(log)]
    command = subprocess.Popen([sys.executable, "-m", "workers.sglang.cpu", *argv], stdout=subprocess.PIPE)
    assert command.stdout is not None
    try:
        while b"ready: " not in command.stdout.readline():
            assert command.poll() is None
        child = int(log.read_text().split()[1])
        command.terminate()
        command.wait(30)
    finally:
        command.kill()
        command.wait()
        command.stdout.close()

    gone(child)


def test_a_server_that_ends_shows_the_end_of_its_log(environment: Callable[[str], Path], tmp_path: Path) -> None:
    server = CpuServer(OPEN, environment(FAILS), tmp_path / "server.log")
    server.start()
    with pytest.raises(ServerFailed, match=r"(?s)ended with 3.*no such device.*server.log"):
        server.wait_ready(within_s=30)
    server.stop()


def test_a_start_that_lost_a_port_is_repeated(environment: Callable[[str], Path], tmp_path: Path) -> None:
    once = tmp_path / "once"
    lost = f"import pathlib, sys\nonce = pathlib.Path({str(once)!r})\n"
    lost += "if not once.exists():\n    once.touch()\n    print('EADDRINUSE')\n    sys.exit(1)\n"
    server = CpuServer(OPEN, environment(lost + ANSWERS), tmp_path / "server.log")
    server.start()
    try:
        server.wait_ready(within_s=30)
    finally:
        server.stop()
    assert once.exists()


def test_without_the_set_up_the_command_names_the_script_that_does_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--environment", str(tmp_path), "--port", "32099"])

    assert result.exit_code == 1
    assert "setup.sh" in result.output


def test_ports_for_every_rank_are_consecutive_and_in_the_flags() -> None:
    first = free_ports(GUARDED.port_count)
    flags = " ".join(GUARDED.sglang_flags(first))

    assert GUARDED.port_count == 4
    assert f'"endpoint": "tcp://*:{first}"' in flags
    assert f'"replay_endpoint": "tcp://*:{first + 2}"' in flags


@pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=FLAVOURS)
def test_every_rank_is_given_a_core_and_the_parents_python_stays_outside(flavour: object) -> None:
    environment = cpu_environment({"PYTHONPATH": "/elsewhere", "HOME": "/root"}, flavour)  # type: ignore[arg-type]
    cores = environment["SGLANG_CPU_OMP_THREADS_BIND"].split("|")

    assert len(cores) == flavour.dp_size  # type: ignore[attr-defined]
    assert {int(core) for core in cores} <= os.sched_getaffinity(0)
    assert "PYTHONPATH" not in environment
    assert environment["HOME"] == "/root"
