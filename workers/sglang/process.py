"""One SGLang server as a process that is owned: started in its own group, watched until ready, started again after a
crash, stopped with everything it started.

Called by launch. Not here: the command line (command), which servers there are (placement), what people see.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from workers.sglang.advice import advice
from workers.sglang.patience import Patience

TAIL_LINES = 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class State(enum.Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    READY = "ready"
    CRASHED = "crashed"  # and about to be started again
    FAILED = "failed"  # and left so
    STOPPED = "stopped"


class ServerFailed(Exception):
    """A server that ended or was not ready in time. It holds its last lines, and what to do if that is known."""


class ServerProcess:
    """`run` keeps the server up until it is cancelled or gives up; `stop` ends it. `on_state` hears of every change."""

    def __init__(
        self,
        *,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        url: str,
        log: Path,
        patience: Patience,
        client: httpx.AsyncClient,
        on_state: Callable[[ServerProcess, str], None],
    ) -> None:
        """`url` is where /health is asked; `log` is appended to. `on_state` gets this and a remark for people."""
        self.name = name
        self.url = url
        self.log = log
        self.state = State.STOPPED
        self.ready_after_s: float | None = None
        self._argv = list(argv)
        self._environment = dict(environment)
        self._patience = patience
        self._client = client
        self._on_state = on_state
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start and return once it is ready. Raises ServerFailed, having ended it."""
        await self._spawn()
        try:
            await self._wait_ready()
        except ServerFailed as error:
            await self._end()
            self._become(State.FAILED, str(error).partition("\n")[0])
            raise

    async def run(self) -> None:
        """Keep a started server up. Raises ServerFailed when it has crashed too often in a row."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            assert self._process is not None
            since_s = loop.time()
            await self._process.wait()
            if self.state is State.READY and loop.time() - since_s >= self._patience.forgive_after_s:
                failures = 0
            await self._recover(failures)
            failures += 1

    async def stop(self) -> None:
        """Ask it to finish its running requests and end; what is left after that is killed. Safe at any time."""
        if self._process is None:
            return
        if self.state is not State.FAILED:
            self._become(State.STOPPED, "")
        await self._end()

    def tail(self) -> str:
        """The last lines it logged, indented."""
        with contextlib.suppress(OSError), self.log.open(errors="replace") as lines:
            return "\n".join(f"    {line.rstrip()}" for line in deque(lines, TAIL_LINES)) or "    (it logged nothing)"
        return "    (no log)"

    def last_line(self) -> str:
        """The last line it logged, for showing progress; empty when there is none."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    async def _recover(self, failures: int) -> None:
        """Start again after a pause, unless this was one failure too many."""
        assert self._process is not None
        patience = self._patience
        error = self._failure(f"ended with {status_text(self._process.returncode)}")
        await self._end()  # what it started may outlive it
        if failures >= patience.restarts:
            self._become(State.FAILED, f"given up after {failures} restarts in a row")
            raise error
        pause_s = patience.pause_s(failures)
        self._become(State.CRASHED, f"{str(error).partition(chr(10))[0]} Starting it again in {pause_s:g} s.")
        await asyncio.sleep(pause_s)
        await self._spawn()
        try:
            await self._wait_ready()
        except ServerFailed:
            if self._process.returncode is None:  # hung: ended here, and counted as a crash by run
                await self._end()

    async def _spawn(self) -> None:
        self._become(State.STARTING, "")
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
            )

    async def _wait_ready(self) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        ended = loop.create_task(self._process.wait())
        try:
            async with asyncio.timeout(self._patience.ready_within_s):
                while not await self._healthy(ended):
                    await asyncio.wait([ended], timeout=self._patience.probe_every_s)
                    if ended.done():
                        raise self._failure(f"ended with {status_text(ended.result())} before it was ready")
        except TimeoutError:
            raise self._failure(f"was not ready within {self._patience.ready_within_s:g} s") from None
        finally:
            ended.cancel()
        self.ready_after_s = loop.time() - begun_s
        self._become(State.READY, f"ready after {self.ready_after_s:.0f} s")

    async def _healthy(self, ended: asyncio.Task[int]) -> bool:
        """Whether /health, which makes a token, answers 200 while our own process lives."""
        try:
            answer = await self._client.get(f"{self.url}/health", timeout=self._patience.probe_timeout_s)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and not ended.done()

    async def _end(self) -> None:
        """The server itself is asked, since it knows its children; then whatever is left of the group is killed."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience.stop_within_s):
                    await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def kill(self) -> None:
        """End the whole group at once, for when nobody waits any longer."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _failure(self, what: str) -> ServerFailed:
        tail = self.tail()
        hint = advice(tail)
        lines = [f"{self.name} {what}.", "Its last lines:", tail, f"(all of it: {self.log})"]
        return ServerFailed("\n".join([*lines, hint] if hint else lines))

    def _become(self, state: State, remark: str) -> None:
        self.state = state
        self._on_state(self, remark)


def status_text(code: int | None) -> str:
    """An exit status as people say it."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"status {code}"


def _end_with_parent() -> Callable[[], None]:
    """What a new child runs before its program: ask the kernel for SIGTERM when this process dies."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: after fork nothing may be loaded
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
