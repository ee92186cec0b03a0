"""Locust as people start it, in processes of its own: headless, --processes, its distributed mode and its web UI.

In processes because Locust patches sockets and threads for gevent when it is imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCUSTFILE = "loadtests/locustfile.py"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


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
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": ""},
    )
    try:
        yield process
    finally:
        process.poll() is not None or os.killpg(process.pid, 9)
        process.communicate()


def test_a_master_without_a_target_says_so_and_sends_its_workers_home() -> None:
    """Workers give a silent master 60 s; here they must end because it tells them to."""
    port = free_port()
    common = ("-f", LOCUSTFILE, "--headless", "--host", "http://127.0.0.1:1", "--master-port", port)
    with (
        locust(*common, "--master", "-t", "5s", "--master-bind-port", port) as master,
        locust(*common, "--worker") as worker,
    ):
        _, said = master.communicate(timeout=30)
        worker.communicate(timeout=30)

    assert master.returncode == 1
    assert said.count("Error: nothing answers at http://127.0.0.1:1") == 1
    assert "trieway up" in said
    assert worker.returncode == 0
