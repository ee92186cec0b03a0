"""`trieway up`: what it prints works, and nothing outlives it, however it or its children end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pids import alive, children, until
from ports import free_ports

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"), pytest.mark.slow]


@dataclass
class Up:
    process: subprocess.Popen[str]
    printed: str
    children: list[int]


@pytest.fixture
def up() -> Iterator[Up]:
    """`trieway up` with two workers, ready."""
    base = free_ports(3)[0]
    argv = ["up", "--workers", "2", "--port", str(base + 2), "--worker-port", str(base)]
    process = subprocess.Popen([sys.executable, "-m", "router", *argv], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if "Ctrl-C" in line:
            break
    running = Up(process, printed, children(process.pid))
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_printed_curl_line_works_and_ctrl_c_leaves_nothing(up: Up) -> None:
    [line] = re.findall(r"curl .*", up.printed)
    answered = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    up.process.send_signal(signal.SIGINT)
    code = up.process.wait(60)

    assert '"chat.completion"' in answered.stdout
    assert code == 0
    assert len(up.children) == 3
    assert not [pid for pid in up.children if alive(pid)]


def test_children_that_are_killed_come_back_and_still_stop_with_the_rest(up: Up) -> None:
    killed = up.children[:2]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def living() -> set[int]:
        return {pid for pid in children(up.process.pid) if alive(pid)} - set(killed)

    until(lambda: len(living()) == 3, "killed workers are started again")
    now = living()
    up.process.send_signal(signal.SIGTERM)
    up.process.wait(60)

    until(lambda: not any(map(alive, now)), "all have ended")


def test_no_child_outlives_a_parent_that_is_killed(up: Up) -> None:
    up.process.kill()
    up.process.wait()

    until(lambda: not [pid for pid in up.children if alive(pid)], "the children end")


def test_a_busy_port_is_one_clear_message(up: Up) -> None:
    [port] = re.findall(r"router on http://127\.0\.0\.1:(\d+)", up.printed)
    again = subprocess.run(
        [sys.executable, "-m", "router", "up", "--port", port, "--worker-port", str(free_ports(4)[0])],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert again.returncode == 1
    assert f"Port {port} is taken" in again.stderr
