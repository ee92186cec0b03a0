"""Replacing parts while they are used: every worker restarted one after another, and a router that is told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

pytestmark = pytest.mark.slow

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos"
CHAT = "/v1/chat/completions"


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the modules of the chaos suite importable."""
    monkeypatch.syspath_prepend(str(CHAOS))


@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="the chaos fleet looks into /proc")
async def test_all_workers_are_restarted_one_by_one_under_load_and_no_request_fails(
    chaos: None, tmp_path: Path
) -> None:
    from fleet import Fleet
    from load import Load, bodies, right_answers

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        fleet = Fleet(3, session, tmp_path / "log")
        try:
            await fleet.start()
            asked = bodies(3, 8)
            load = Load(session, fleet.url, asked, await right_answers(session, fleet.worker_url(0), asked), 3)
            load.leaves = 0.0
            running = asyncio.ensure_future(load.run(10.0, 3600.0))
            for index, name in enumerate(fleet.names):
                await fleet.call("POST", f"{fleet.url}/workers/{name}/drain")
                await fleet.until_idle(name)
                fleet.kill_worker(index)
                await fleet.call("DELETE", f"{fleet.url}/workers/{name}")
                await fleet.revive(index)
                await fleet.call("POST", f"{fleet.url}/workers", {"url": fleet.worker_url(index), "id": name})
                await fleet.until_ready(3)
            load.stop()
            await running
        finally:
            fleet.stop()

    assert load.account.violations == []
    assert load.account.ends == {"answered": load.sent}
    assert load.sent >= 20


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="the chaos fleet looks into /proc")
async def test_a_router_told_to_stop_finishes_what_runs_and_refuses_what_comes(chaos: None, tmp_path: Path) -> None:
    from fleet import Fleet

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        fleet = Fleet(1, session, tmp_path / "log")
        body: dict[str, Any] = {"model": "simulated", "messages": [{"role": "user", "content": "x"}], "stream": True}
        try:
            await fleet.start()
            await fleet.call(
                "POST", fleet.worker_url(0) + "/simulated/faults", {"kind": "slow_bytes", "bytes_per_s": 3000.0}
            )
            async with httpx.AsyncClient(base_url=fleet.url, timeout=60) as client:
                async with client.stream("POST", CHAT, json={**body, "max_tokens": 40}) as stream:
                    lines = stream.aiter_lines()
                    await anext(lines)
                    assert fleet.router is not None
                    fleet.router.send_signal(signal.SIGTERM)
                    async with asyncio.timeout(20):
                        while (ready := await client.get("/ready")).status_code != 503:
                            await asyncio.sleep(0.02)
                    refused = await client.post(CHAT, json=body)
                    rest = [line async for line in lines if line]
            code = await asyncio.to_thread(fleet.router.wait, 20)
        finally:
            fleet.stop()

    assert ready.json()["error"]["code"] == "router_stopping"
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert refused.json()["error"]["code"] == "router_stopping"
    assert rest[-1] == "data: [DONE]"
    assert code in (0, -signal.SIGTERM)
