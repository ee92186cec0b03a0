"""Child processes that are owned: started with a log, watched while work runs, stopped in reverse order.

Children run in sessions of their own, so that Ctrl-C reaches only us and we stop them in order; on Linux the kernel
also ends them when we are killed. Called by fleet.py. Not here: what the programs are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TAIL_LINES = 15

T = TypeVar("T")


class ChildExited(Exception):
    """A child ended that should still run. Its message names it and carries its last log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A running program, what people call it, and where it logs to."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def tail(self) -> str:
        """The last lines it logged, indented."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it logged nothing)"

    def exited(self) -> ChildExited:
        return ChildExited(f"{self.name} ended with {_status(self.process.returncode)}. Its last lines:\n{self.tail()}")


class Processes:
    """An async context manager; leaving it stops every child, also when it is left by an error or a cancellation."""

    def __init__(self, *, stop_within_s: float = 10.0) -> None:
        """A child that has not ended `stop_within_s` after SIGTERM is killed."""
        self._stop_within_s = stop_within_s
        self._children: list[Child] = []
        self._logs = tempfile.TemporaryDirectory(prefix="trieway-loadtest-")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop(self._children)
        finally:
            self._logs.cleanup()

    async def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Starts a program; its output goes to its log. Raises OSError when it cannot be started."""
        log = Path(self._logs.name) / f"{len(self._children)}-{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent() if sys.platform == "linux" else None,
            )
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child

    async def guard(self, work: Awaitable[T]) -> T:
        """The result of `work`; when a child ends first, cancels it and raises ChildExited."""
        try:
            async with asyncio.TaskGroup() as group:
                watchers = [group.create_task(_watch(child)) for child in self._children]
                result = await work
                for child in self._children:
                    if _has_ended(child.process):  # its watcher may not have heard yet
                        await child.process.wait()
                        raise child.exited()
                for watcher in watchers:
                    watcher.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return result

    async def stop(self, children: Sequence[Child]) -> None:
        """Ends children, last started first: asks, waits, then kills. Safe to call for ones that have ended."""
        for child in list(reversed(children)):
            await _stop(child.process, self._stop_within_s)
            with contextlib.suppress(ValueError):
                self._children.remove(child)


def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """As the kernel knows it, which asyncio hears from a thread of its own."""
    if sys.platform != "linux":  # waitid is not everywhere
        return process.returncode is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # reaped already


async def _watch(child: Child) -> None:
    await child.process.wait()
    raise child.exited()


async def _stop(process: asyncio.subprocess.Process, within_s: float) -> None:
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To the child and all that it started: it leads its own process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_with_parent() -> Callable[[], None]:
    """What a new child runs before its program: ask the kernel for SIGTERM when this process dies."""
    prctl = ctypes.CDLL(None).prctl  # looked up here: after fork nothing may be loaded
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"status {code}"
