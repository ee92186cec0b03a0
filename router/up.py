"""`trieway up`: simulated workers and the router as child processes, started in order and stopped together.

Children run in sessions of their own and die with this process (Linux), so none is ever left behind. Only HTTP and
command lines connect it to the workers. Called by cli.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

import click
import httpx

from router.obstacle import obstacle

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
RESTARTS = 5
_PR_SET_PDEATHSIG = 1


class Child:
    """One process, its name in plain words, and the URL that answers 200 when it is ready."""

    def __init__(self, name: str, argv: list[str], ready_url: str) -> None:
        self.name = name
        self.argv = argv
        self.ready_url = ready_url
        self.restarts = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  our own command lines
            self.argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
        )

    def restart(self) -> None:
        self.restarts += 1
        self.process = self._start()

    def stop(self) -> None:
        """Ask to stop, then insist; the whole session goes, so nothing it started is left."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                continue
            return


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Stop(Exception):
    """Ctrl-C or SIGTERM."""


class _Signals:
    """Ends the main thread's work on Ctrl-C or SIGTERM. Python swallows what a handler raises in the middle of a fork,
    so it is remembered, and raised again at the next `check`.
    """

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def check(self) -> None:
        if self._came:
            raise _Stop

    def _on_signal(self, number: int, frame: object) -> None:
        self._came = True
        raise _Stop


def run_up(*, workers: int, port: int, worker_port: int, policy: str) -> int:
    """Run until Ctrl-C; returns the exit code. Prints what is running and a curl line that works."""
    worker_ports = [worker_port + i for i in range(workers)]
    for wanted in [*worker_ports, port]:
        if obstacle("127.0.0.1", wanted):
            click.echo(f"Port {wanted} is taken. Choose others with --port and --worker-port.", err=True)
            return 1

    children: list[Child] = []
    try:
        signals = _Signals()
        for i, each in enumerate(worker_ports):
            children.append(_worker(f"worker w{i + 1}", each))
        with httpx.Client(timeout=2.0) as client:  # one for all looks: making one takes 50 ms of CPU
            for child in children:
                _wait_ready(client, child, signals)
            children.append(_router(port, worker_ports, policy))
            _wait_ready(client, children[-1], signals)
        _say(port, worker_ports, policy)
        _keep(children, signals)
    except _Stop:
        click.echo("\nStopping ...")
        return 0
    except RuntimeError as error:
        click.echo(str(error), err=True)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for child in reversed(children):
            child.stop()
        click.echo("All stopped.")


def _worker(name: str, port: int) -> Child:
    argv = [sys.executable, "-m", "workers", "simulate", "--port", str(port), "--log-level", "warning"]
    return Child(name, argv, f"http://127.0.0.1:{port}/v1/models")


def _router(port: int, worker_ports: list[int], policy: str) -> Child:
    argv = [sys.executable, "-m", "router", "serve", "--port", str(port), "--policy", policy, "--log-level", "warning"]
    for each in worker_ports:
        argv += ["--worker", f"http://127.0.0.1:{each}"]
    return Child("the router", argv, f"http://127.0.0.1:{port}/ready")


def _wait_ready(client: httpx.Client, child: Child, signals: _Signals) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        signals.check()
        if child.process.poll() is not None:
            raise RuntimeError(f"{child.name} ended with code {child.process.returncode} before it was ready.")
        try:
            if client.get(child.ready_url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{child.name} was not ready within {START_TIMEOUT_S:g} s.")


def _say(port: int, worker_ports: list[int], policy: str) -> None:
    first, last = worker_ports[0], worker_ports[-1]
    click.echo(
        f"\nRunning: {len(worker_ports)} simulated SGLang workers on ports {first} to {last},\n"
        f"and the router on http://127.0.0.1:{port} (policy {policy}). Try:\n\n"
        f"  curl -s http://127.0.0.1:{port}/v1/chat/completions -H 'content-type: application/json' "
        "-d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"max_tokens\": 16}'\n\n"
        f"Dashboard: http://127.0.0.1:{port}/dashboard\n"
        f"Workers: http://127.0.0.1:{port}/workers   Metrics: http://127.0.0.1:{port}/metrics\n"
        "Ctrl-C stops all of it."
    )


def _keep(children: list[Child], signals: _Signals) -> NoReturn:
    """Until a signal comes: start again what dies, a few times each."""
    while True:
        time.sleep(0.5)
        signals.check()
        for child in children:
            code = child.process.poll()
            if code is None:
                continue
            if child.restarts >= RESTARTS:
                raise RuntimeError(f"{child.name} has ended {RESTARTS + 1} times; giving up.")
            click.echo(f"{child.name} ended (code {code}); starting it again.", err=True)
            child.restart()
