"""Programs that serve until they are told to stop. Used by tests/docs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx

READY_S = 60.0


class Server:
    """A command that serves until it is told to stop. Ready once `url` answers, whatever it answers."""

    def __init__(self, command: str, url: str, folder: Path, environment: dict[str, str]) -> None:
        self.command = command
        self._log = folder / f"server-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_S
        while not self._answers(url):
            assert self.process.poll() is None, f"{command} ended:\n{self._log.read_text()}"
            assert time.monotonic() < deadline, f"{command} did not answer at {url}:\n{self._log.read_text()}"
            time.sleep(0.1)

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            return httpx.get(url, timeout=5, verify=False).status_code < 500
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """Asks as Ctrl-C does; insists after a while, and then complains."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"{self.command} did not stop:\n{self._log.read_text()}") from None
