"""One run: fleet, load and schedule together, then the questions that must have one answer. Returns a report."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
from fleet import Fleet
from load import ENDS_S, Load, bodies, right_answers
from schedule import Trouble, schedule

SETTLE_S = 30.0
SPARE_FILES = 24
"""Descriptors that may be open after a run and were not before it: kept-alive connections of probes and polls."""


async def run(
    *, seconds: float, seed: int, workers: int = 8, rate_per_s: float = 15.0, log: Path, flags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Bring chaos over a fleet for `seconds`; the report's `violations` is empty when nothing was lost."""
    limits = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(total=None)) as session:
        fleet = Fleet(workers, session, log, flags)
        try:
            await fleet.start()
            asked = bodies(seed, 24)
            load = Load(session, fleet.url, asked, await right_answers(session, fleet.worker_url(0), asked), seed)
            before = fleet.open_files()
            plan = schedule(seed, seconds, workers)
            began_s = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run(rate_per_s, seconds))
                for trouble in plan:
                    tasks.create_task(_make(fleet, trouble))
            await _settle(fleet, load, before)
            return {
                "seed": seed,
                "seconds": round(time.monotonic() - began_s, 1),
                "troubles": [
                    f"{each.at_s:g} s {each.kind} {fleet.names[each.worker]} {each.for_s:g} s" for each in plan
                ],
                "requests": load.sent,
                "ends": dict(load.account.ends.most_common()),
                "violations": load.account.violations,
            }
        finally:
            fleet.stop()


async def _make(fleet: Fleet, trouble: Trouble) -> None:
    await asyncio.sleep(trouble.at_s)
    index = trouble.worker
    if trouble.kind == "drain":
        await fleet.drain_and_return(index)
        return
    if trouble.kind == "kill":
        fleet.kill_worker(index)
    else:
        await fleet.call("POST", fleet.worker_url(index) + "/simulated/faults", trouble.fault)
    await asyncio.sleep(trouble.for_s)
    await fleet.revive(index)


async def _settle(fleet: Fleet, load: Load, files_before: int) -> None:
    """Every request ended once; nothing in flight, nothing running, no descriptor left; all workers back."""
    violations = load.account.violations
    if load.account.total != load.sent:
        violations.append(f"{load.sent} requests were sent and {load.account.total} ended")
    deadline_s = time.monotonic() + SETTLE_S + ENDS_S
    wrong: list[str] = ["never looked"]
    while wrong and time.monotonic() < deadline_s:
        await load.nudge()  # a worker whose breaker is open comes back by requests only
        wrong = await _leaks(fleet, files_before)
        await asyncio.sleep(0.25)
    violations += wrong


async def _leaks(fleet: Fleet, files_before: int) -> list[str]:
    wrong = []
    for each in await fleet.seen():
        if each["in_flight"]:
            wrong.append(f"{each['id']} has {each['in_flight']} in flight after the run")
        if each["state"] != "ready":
            wrong.append(f"{each['id']} is {each['state']}: {each['reason']}")
        load = each["load"]
        if load and load["running"] + load["waiting"]:
            wrong.append(f"{each['id']} still works on {load['running'] + load['waiting']} requests")
    files = fleet.open_files()
    if files > files_before + SPARE_FILES:
        wrong.append(f"the router has {files} open files, {files_before} before")
    return wrong
