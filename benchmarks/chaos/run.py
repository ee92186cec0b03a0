"""One run: fleet, load and schedule together, then the questions that must have one answer. Returns a report."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from fleet import Fleet
from load import ENDS_S, Load, bodies, right_answers
from schedule import KINDS, Trouble, schedule

SETTLE_S = 30.0
SPARE_FILES = 24
"""Descriptors that may be open after a run and were not before it: kept-alive connections of probes and polls."""


async def run(
    *,
    seconds: float,
    seed: int,
    workers: int = 8,
    rate_per_s: float = 15.0,
    log: Path,
    flags: tuple[str, ...] = (),
    kinds: tuple[str, ...] = KINDS,
) -> dict[str, Any]:
    """Bring chaos over a fleet for `seconds`; the report's `violations` is empty when nothing was lost."""
    limits = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(total=None)) as session:
        fleet = Fleet(workers, session, log, flags)
        try:
            await fleet.start()
            asked = bodies(seed, 24)
            right = await right_answers(session, fleet.worker_url(0), asked)
            load = Load(session, fleet.url, asked, right, seed, lambda began_s: _was_away(fleet, began_s))
            before, memory_mib = fleet.open_files(), fleet.memory_mib()
            plan = schedule(seed, seconds, workers, kinds)
            began_s = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.run(rate_per_s, seconds))
                for trouble in plan:
                    tasks.create_task(_make(fleet, trouble))
            await _settle(fleet, load, before)
            took_s = round(time.monotonic() - began_s, 1)
            memory = {"before": memory_mib, "after": fleet.memory_mib()}
            await fleet.count()
            if await fleet.stop_router() not in (0, -signal.SIGTERM):
                fleet.wrong.append("the router did not stop in order")
            return _report(fleet, load, plan, {"seed": seed, "seconds": took_s, "router_memory_mib": memory}, log)
        finally:
            fleet.stop()


def _was_away(fleet: Fleet, began_s: float) -> bool:
    return fleet.router_away or began_s < fleet.restart_ended_s


def _report(fleet: Fleet, load: Load, plan: list[Trouble], head: dict[str, Any], log: Path) -> dict[str, Any]:
    account, counted = load.account, fleet.counted
    if "Traceback" in log.read_text("utf-8", "replace"):
        fleet.wrong.append(f"a process printed a traceback, see {log}")
    took_s = sorted(account.took_s) or [0.0]
    return {
        **head,
        "troubles": dict(Counter(each.kind for each in plan).most_common()),
        "schedule": [
            f"{each.at_s:g} s {each.kind} {'' if each.worker is None else fleet.names[each.worker]} {each.for_s:g} s"
            for each in plan
        ],
        "router_restarts": fleet.restarts,
        "requests": load.sent,
        "ends": dict(account.ends.most_common()),
        "sent_again_by_clients": dict(account.sent_again.most_common()),
        "router": dict(counted.most_common()),
        "seconds_to_the_end": {
            name: round(took_s[min(len(took_s) - 1, int(len(took_s) * share))], 2)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
        "violations": account.violations + fleet.wrong,
    }


async def _make(fleet: Fleet, trouble: Trouble) -> None:
    await asyncio.sleep(trouble.at_s)
    index = trouble.worker
    if index is None:
        await (fleet.restart_router() if trouble.kind == "router_restart" else fleet.add_and_remove(trouble.for_s))
        return
    if trouble.kind == "drain":
        await fleet.drain_and_return(index)
        return
    if trouble.kind == "partition":
        await fleet.partition(index, trouble.for_s)
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
    deadline_s = time.monotonic() + SETTLE_S + ENDS_S
    wrong: list[str] = ["never looked"]
    while wrong and time.monotonic() < deadline_s:
        await load.nudge()  # a worker whose breaker is open comes back by requests only
        wrong = await _leaks(fleet, files_before)
        await asyncio.sleep(0.25)
    if load.account.total != load.sent:
        wrong.append(f"{load.sent} requests were sent and {load.account.total} ended")
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
    if len(await fleet.seen()) != len(fleet.names):
        wrong.append(f"the router knows {len(await fleet.seen())} workers, not {len(fleet.names)}")
    queue = await fleet.queue()
    if queue["in_flight"] or queue["waiting"]:
        wrong.append(f"{queue['in_flight']} requests are let in and {queue['waiting']} wait after the run")
    files = fleet.open_files()
    if files > files_before + SPARE_FILES:
        wrong.append(f"the router has {files} open files, {files_before} before")
    return wrong
