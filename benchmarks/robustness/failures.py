"""A worker killed, a worker that hangs, all workers replaced one by one: under load, with how long it took to notice.

The load is that of the chaos run, which accounts for every request and compares every byte. Called by __main__.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from fleet import Fleet
from load import Load, bodies, right_answers

WORKERS = 8
RATE_PER_S = 40.0
SPEED = 1.0
"""A worker answers as fast as the GPU it models, so that several requests run on each."""
BETWEEN_S = 2.0
LOOK_S = 0.01
DEAD_WITHIN_S = 2.0
STALL_S = 5.0
"""The deadline of a hung worker here; by default it is 60 s (health.stall_s)."""
STALL_GRACE_S = 6.0
"""A stall begins with the first request that is not answered, or with the first probe that is: one every 5 s."""


@dataclass
class Stage:
    fleet: Fleet
    load: Load
    running: asyncio.Future[None]

    def violations(self) -> list[str]:
        return [*self.load.account.violations, *self.fleet.wrong]

    async def report(self, **more: Any) -> dict[str, Any]:
        """What became of all requests; none is sent any more."""
        self.load.stop()
        await self.running
        await self.fleet.count()
        return {
            "requests": self.load.sent,
            "ends": dict(self.load.account.ends.most_common()),
            "router": dict(self.fleet.counted.most_common()),
            **more,
        }


@asynccontextmanager
async def stage(log: Path, *flags: str) -> AsyncIterator[Stage]:
    """A fleet under load for the time of a block."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        fleet = Fleet(WORKERS, session, log, ("--log-level", "warning", *flags), settings=(), speed=SPEED, relays=0)
        try:
            await fleet.start()
            asked = bodies(7, 12)
            load = Load(session, fleet.url, asked, await right_answers(session, fleet.worker_url(0), asked), 7)
            load.leaves = 0.0
            running = asyncio.ensure_future(load.run(RATE_PER_S, 3600.0))
            await asyncio.sleep(BETWEEN_S)
            yield Stage(fleet, load, running)
        finally:
            fleet.stop()


async def _until(stage: Stage, name: str, *, ready: bool) -> float:
    """Seconds until the router sees the worker so."""
    began_s = time.monotonic()
    async with asyncio.timeout(90):
        while True:
            [state] = [each["state"] for each in await stage.fleet.seen() if each["id"] == name]
            if (state == "ready") is ready:
                return time.monotonic() - began_s
            await asyncio.sleep(LOOK_S)


def _spread(seconds: list[float]) -> dict[str, float]:
    found = sorted(seconds)
    return {"least": round(found[0], 2), "median": round(found[len(found) // 2], 2), "most": round(found[-1], 2)}


async def kill(rounds: int, log: Path) -> dict[str, Any]:
    """SIGKILL one of eight workers under load, again and again."""
    took_s: list[float] = []
    async with stage(log) as on:
        for index in (i % WORKERS for i in range(rounds)):
            on.fleet.kill_worker(index)
            took_s.append(await _until(on, on.fleet.names[index], ready=False))
            await asyncio.sleep(BETWEEN_S)
            await on.fleet.revive(index)
            await _until(on, on.fleet.names[index], ready=True)
            await asyncio.sleep(BETWEEN_S)
        report = await on.report(noticed_after_s=_spread(took_s))
    late = [f"a dead worker was noticed after {each:.2f} s" for each in took_s if each >= DEAD_WITHIN_S]
    return {**report, "violations": on.violations() + late}


async def hang(rounds: int, log: Path) -> dict[str, Any]:
    """SIGSTOP one of eight workers under load: it accepts connections and says nothing; then let it go on."""
    took_s: list[float] = []
    async with stage(log, "--health-stall-s", f"{STALL_S:g}") as on:
        for index in (i % WORKERS for i in range(rounds)):
            on.fleet.workers[index].send_signal(signal.SIGSTOP)
            took_s.append(await _until(on, on.fleet.names[index], ready=False))
            on.fleet.workers[index].send_signal(signal.SIGCONT)
            await _until(on, on.fleet.names[index], ready=True)
            await asyncio.sleep(BETWEEN_S)
        report = await on.report(noticed_after_s=_spread(took_s), stall_s=STALL_S)
    late = [f"a hung worker was noticed after {each:.2f} s" for each in took_s if each >= STALL_S + STALL_GRACE_S]
    return {**report, "violations": on.violations() + late}


async def rolling(rounds: int, log: Path) -> dict[str, Any]:
    """Drain, stop, start and add again every worker, one after another, `rounds` workers in all."""
    async with stage(log) as on:
        fleet = on.fleet
        for index in (i % WORKERS for i in range(rounds)):
            name = fleet.names[index]
            await fleet.call("POST", f"{fleet.url}/workers/{name}/drain")
            await fleet.until_idle(name)
            fleet.kill_worker(index)
            await fleet.call("DELETE", f"{fleet.url}/workers/{name}")
            await fleet.revive(index)
            await fleet.call("POST", f"{fleet.url}/workers", {"url": fleet.routed_url(index), "id": name})
            await _until(on, name, ready=True)
        report = await on.report(replaced=rounds)
    failed = {how: count for how, count in on.load.account.ends.items() if how != "answered"}
    return {**report, "violations": on.violations() + [f"{count} {how}" for how, count in failed.items()]}
