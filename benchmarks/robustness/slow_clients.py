"""What 5,000 connections that send a byte a second do to everybody else: they come to one of two routers.

Both stand before the same workers and get every second request of one client, at the same instants, so that whatever
else the machine does, it does to both. Latencies are of short requests over kept-alive connections; the time in which
the connections are opened, refused after their deadline and opened again is in them. Called by __main__.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from fleet import Fleet

CONNECTIONS = 5000
RATE_PER_S = 60.0
ROUND_S = 45.0
"""Longer than the 30 to 37.5 s after which headers that did not end are refused: the connections come again."""
MOST = 1.10
BODY = {"model": "simulated", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}


Took = dict[str, list[float]]
"""Latencies in seconds, by router."""


@asynccontextmanager
async def trickling(port: int, seen: list[dict[str, Any]]) -> AsyncIterator[None]:
    """The slow client, for the time of a block."""
    program = Path(__file__).with_name("trickle.py")
    client = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(port), str(CONNECTIONS), stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout is not None
    try:
        async with asyncio.timeout(60):
            await client.stdout.readline()
        yield
    finally:
        client.send_signal(signal.SIGTERM)
        out, _ = await client.communicate()
        seen.append(json.loads(out or b"{}"))


async def _compare(session: aiohttp.ClientSession, urls: dict[str, str], seconds: float) -> tuple[Took, int]:
    """Latencies of requests sent by turns, whether or not earlier ones are answered; and how many failed."""
    took_s: Took = {name: [] for name in urls}
    failed, rng = 0, Random(1)

    async def one(name: str) -> None:
        nonlocal failed
        began_s = time.perf_counter()
        async with session.post(urls[name] + "/v1/chat/completions", json=BODY) as answer:
            await answer.read()
            failed += answer.status != 200
        took_s[name].append(time.perf_counter() - began_s)

    end_s = time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        while time.monotonic() < end_s:
            for name in rng.sample(sorted(urls), len(urls)):
                tasks.create_task(one(name))
                await asyncio.sleep(rng.expovariate(RATE_PER_S))
    return took_s, failed


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], share: float) -> float:
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * share))]


async def slow_clients(rounds: int, log: Path) -> dict[str, Any]:
    """`rounds` times ROUND_S with them, after one without."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    slow = list[dict[str, Any]]()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        fleet = Fleet(2, session, log, ("--log-level", "error"), settings=(), relays=0)
        try:
            await fleet.start()
            urls = {"with": fleet.url, "without": fleet.start_twin()}
            await fleet.until_ok(urls["without"] + "/ready")
            await _compare(session, urls, 5.0)
            pids = {"with": fleet.pid, "without": fleet.twin_pid}
            calm = {name: cpu_s(pid) for name, pid in pids.items()}
            alike, failed = await _compare(session, urls, ROUND_S)
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            running = asyncio.ensure_future(_compare(session, urls, ROUND_S * rounds))
            async with trickling(fleet.router_port, slow):
                took, more = await running
                memory_mib = fleet.memory_mib()
            after = {name: cpu_s(pid) for name, pid in pids.items()}
        finally:
            fleet.stop()
    return {
        **_report(took, alike, failed + more),
        "router_cpu_share": {
            "with": round((after["with"] - before["with"]) / (ROUND_S * rounds), 4),
            "same router before": round((before["with"] - calm["with"]) / ROUND_S, 4),
            "without": round((after["without"] - before["without"]) / (ROUND_S * rounds), 4),
        },
        "router_memory_mib_with": memory_mib,
        "slow_connections_refused_and_opened_again": sum(each.get("closed_by_router", 0) for each in slow),
    }


def _report(took: Took, alike: Took, failed: int) -> dict[str, Any]:
    def ratios(found: Took) -> dict[str, float]:
        return {
            name: round(quantile(found["with"], share) / quantile(found["without"], share), 3)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        }

    violations = [f"{failed} requests failed"] if failed else []
    if ratios(took)["p99"] > MOST:
        violations.append(f"p99 is {ratios(took)['p99']} times what it is without them, over {MOST}")
    return {
        "connections": CONNECTIONS,
        "requests": {name: len(found) for name, found in took.items()},
        "milliseconds": {
            name: {label: round(1000 * quantile(found, share), 2) for label, share in (("p50", 0.5), ("p99", 0.99))}
            for name, found in took.items()
        },
        "ratio_with_to_without": ratios(took),
        "ratio_of_the_two_routers_before": ratios(alike),
        "violations": violations,
    }
