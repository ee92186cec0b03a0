"""Total deadlines: each request's own, with one timer for all."""

from __future__ import annotations

import asyncio

from router.fleet.call_off import CallOff
from router.fleet.deadlines import Deadlines


async def test_each_is_called_off_when_it_is_due_and_what_has_ended_is_not() -> None:
    late: list[CallOff] = []
    done = asyncio.Event()

    def told(call_off: CallOff) -> None:
        late.append(call_off)
        if len(late) == 3:
            done.set()

    task = asyncio.current_task()
    assert task is not None
    deadlines = Deadlines(told)
    first, ended, second, third = (CallOff(task) for _ in range(4))
    for call_off in (first, ended, second):
        deadlines.begin(call_off, 0.02, asyncio.get_running_loop())
    deadlines.end(ended)
    deadlines.begin(third, 0.05, asyncio.get_running_loop())
    async with asyncio.timeout(20):
        await done.wait()

    assert late == [first, second, third]


async def test_a_shorter_limit_than_before_is_kept_too() -> None:
    late = asyncio.Event()
    deadlines = Deadlines(lambda call_off: late.set())
    task = asyncio.current_task()
    assert task is not None
    long, short = CallOff(task), CallOff(task)
    deadlines.begin(long, 3600.0, asyncio.get_running_loop())
    deadlines.begin(short, 0.01, asyncio.get_running_loop())
    async with asyncio.timeout(20):
        await late.wait()
    deadlines.end(long)
