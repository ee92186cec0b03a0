from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from loadtests.processes import ChildExited, Processes

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


async def started(processes: Processes, code: str) -> tuple[int, Path]:
    child = await processes.start("a program", (sys.executable, "-c", code), os.environ)
    return child.process.pid, child.log


async def test_a_child_that_ignores_the_request_to_stop_is_killed() -> None:
    async with Processes(stop_within_s=0.2) as processes:
        pid, log = await started(processes, DEAF)
        while "deaf" not in log.read_text():
            await processes.guard(_pause())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not log.exists()


async def test_work_ends_with_its_result_when_no_child_does() -> None:
    async with Processes() as processes:
        await started(processes, "import time; time.sleep(60)")
        assert await processes.guard(_value(3)) == 3


async def test_an_error_of_the_work_comes_through_as_it_is() -> None:
    async def broken() -> None:
        raise KeyError("mine")

    async with Processes() as processes:
        await started(processes, "import time; time.sleep(60)")
        with pytest.raises(KeyError, match="mine"):
            await processes.guard(broken())


async def test_a_child_killed_by_a_signal_is_reported_by_the_signals_name() -> None:
    async with Processes() as processes:
        await started(processes, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        with pytest.raises(ChildExited, match=r"(?s)a program ended with signal SIGKILL.*it logged nothing"):
            await processes.guard(_forever())


async def _pause() -> None:
    await asyncio.sleep(0.01)


async def _value(value: int) -> int:
    return value


async def _forever() -> None:
    await asyncio.Event().wait()
