"""What 5,000 connections that send a byte a second do to everybody else: latency with and without them, in turns.

Blocks with and without alternate within one run, so that a busy machine is busy for both. Latencies are of short
requests over kept-alive connections; the router's CPU seconds stand beside them, since they survive a busy machine
better. Called by __main__.
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
BLOCK_S = 40.0
"""Longer than the 30 s after which headers that did not end are refused: the connections come again."""
MOST = 1.10
BODY = {"model": "simulated", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}


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


async def _block(session: aiohttp.ClientSession, url: str, rng: Random) -> tuple[list[float], int]:
    """Latencies of BLOCK_S of requests, sent whether or not earlier ones are answered; and how many failed."""
    took_s: list[float] = []
    failed = 0

    async def one() -> None:
        nonlocal failed
        began_s = time.perf_counter()
        async with session.post(url, json=BODY) as answer:
            await answer.read()
            failed += answer.status != 200
        took_s.append(time.perf_counter() - began_s)

    end_s = time.monotonic() + BLOCK_S
    async with asyncio.TaskGroup() as tasks:
        while time.monotonic() < end_s:
            tasks.create_task(one())
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
    """`rounds` blocks without and as many with them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    took: dict[str, list[list[float]]] = {"without": [], "with": []}
    cpu: dict[str, list[float]] = {"without": [], "with": []}
    failed, slow, rng = 0, list[dict[str, Any]](), Random(1)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        fleet = Fleet(2, session, log, ("--log-level", "error"), settings=(), relays=0)
        try:
            await fleet.start()
            assert fleet.router is not None
            url = fleet.url + "/v1/chat/completions"
            await _block(session, url, rng)
            for _ in range(rounds):
                for kind in ("without", "with"):
                    before_s = cpu_s(fleet.router.pid)
                    if kind == "with":
                        async with trickling(fleet.router_port, slow):
                            before_s = cpu_s(fleet.router.pid)
                            found, bad = await _block(session, url, rng)
                            used_s = cpu_s(fleet.router.pid) - before_s
                            memory_mib = fleet.memory_mib()
                    else:
                        found, bad = await _block(session, url, rng)
                        used_s = cpu_s(fleet.router.pid) - before_s
                    took[kind].append(found)
                    cpu[kind].append(used_s)
                    failed += bad
                    await asyncio.sleep(1.0)
        finally:
            fleet.stop()
    return _report(took, cpu, failed, slow, memory_mib)


def _report(
    took: dict[str, list[list[float]]],
    cpu: dict[str, list[float]],
    failed: int,
    slow: list[dict[str, Any]],
    memory_mib: float,
) -> dict[str, Any]:
    pooled = {kind: [each for block in blocks for each in block] for kind, blocks in took.items()}
    ratios = {
        name: round(quantile(pooled["with"], share) / quantile(pooled["without"], share), 3)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
    pairs = sorted(
        quantile(after, 0.99) / quantile(before, 0.99)
        for before, after in zip(took["without"], took["with"], strict=True)
    )
    violations = [f"{failed} requests failed"] if failed else []
    if ratios["p99"] > MOST:
        violations.append(f"p99 is {ratios['p99']} times what it is without them, over {MOST}")
    return {
        "connections": CONNECTIONS,
        "requests": {kind: len(found) for kind, found in pooled.items()},
        "milliseconds": {
            kind: {name: round(1000 * quantile(found, share), 2) for name, share in (("p50", 0.5), ("p99", 0.99))}
            for kind, found in pooled.items()
        },
        "ratio_with_to_without": ratios,
        "ratio_of_p99_by_round": [round(each, 3) for each in pairs],
        "router_cpu_share": {
            kind: round(sum(used_s) / (BLOCK_S * len(used_s)), 4) for kind, used_s in cpu.items()
        },
        "router_memory_mib_with": memory_mib,
        "slow_connections_closed_by_router": sum(each.get("closed_by_router", 0) for each in slow),
        "violations": violations,
    }
