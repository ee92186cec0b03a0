"""Takes the README's two pictures of the dashboard: simulated workers, seeded traffic, headless Chromium.

    python docs/pictures/screenshots.py

Starts everything on free ports of this machine and stops it again; takes about two minutes. Needs Chromium.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chromium import browser, chromium_path  # noqa: E402

WORKERS = 4
TRAFFIC_S = 110.0
SESSIONS_PER_S = 1.5
WORDS = ("cache", "prefix", "worker", "token", "route", "queue", "block", "trie", "batch", "decode", "fleet", "prompt")


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *arguments, "--log-level", "warning"]
    return subprocess.Popen(command, cwd=ROOT)  # noqa: S603  our own command lines


async def session(client: httpx.AsyncClient, number: int, systems: list[str], documents: list[str]) -> None:
    """One conversation: a system prompt that many share, maybe a document that some share, a few turns."""
    rng = random.Random(number)
    place = rng.choices(range(len(systems)), [5, 3, 3, 2, 2, 1])[0]
    content = rng.choices(documents, [5, 3, 2, 1, 1])[0] if place == 0 else words(rng, rng.randint(20, 200))
    messages = [{"role": "system", "content": systems[place]}, {"role": "user", "content": content}]
    for _ in range(rng.randint(1, 5)):
        body = {"model": "simulated", "messages": messages, "max_tokens": rng.randint(20, 90), "stream": True}
        headers = {"x-session-id": f"session-{number}"}
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            async for _ in answer.aiter_bytes():
                pass
        messages.append({"role": "assistant", "content": words(rng, 40)})
        messages.append({"role": "user", "content": words(rng, 30)})
        await asyncio.sleep(rng.expovariate(0.5))


async def traffic(url: str, seconds: float) -> None:
    rng = random.Random(1)
    systems = [words(rng, count) for count in (1400, 900, 700, 420, 300, 200)]
    documents = [words(rng, 500) for _ in range(5)]
    end = time.monotonic() + seconds
    number = 0
    limits = httpx.Limits(keepalive_expiry=2.0)  # the server closes what is idle for longer, maybe as we send
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client, asyncio.TaskGroup() as sessions:
        while time.monotonic() < end:
            sessions.create_task(session(client, number, systems, documents))
            number += 1
            await asyncio.sleep(rng.expovariate(SESSIONS_PER_S))


async def wait_ready(url: str, workers: int) -> None:
    async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(90):
        while True:
            try:
                if (await client.get("/ready")).json().get("ready_workers") == workers:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)


async def pictures(url: str) -> None:
    """The whole page in the dark on a desk, and its upper half in the light on a phone."""
    async with browser() as page:
        await page.open(f"{url}/dashboard?theme=dark", width=1440, height=1180)
        await page.until("data !== null && explained !== null && explained.outcome !== null")
        await page.picture(HERE / "dashboard.png")
        await page.run("setTheme('light')")
        await page.size(390, 844, phone=True, scale=2.0)
        await page.until("innerWidth === 390")
        await page.run("render()")
        await page.picture(HERE / "dashboard-phone.png")


async def main() -> None:
    ports = [free_port() for _ in range(WORKERS)]
    processes = [start("workers", "simulate", "--port", str(port), "--speed", "0.5") for port in ports]
    try:
        port = free_port()
        fleet = [f"--worker=gpu{place}=http://127.0.0.1:{each}" for place, each in enumerate(ports)]
        shadows = ["--shadow-policies", "prefix_match", "--shadow-policies", "round_robin"]
        processes.append(start("router", "serve", "--port", str(port), "--policy", "expected_ttft", *shadows, *fleet))
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url, WORKERS)
        async with asyncio.TaskGroup() as tasks:
            load = tasks.create_task(traffic(url, TRAFFIC_S + 30))
            await asyncio.sleep(TRAFFIC_S)
            await pictures(url)
            load.cancel()
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)


if __name__ == "__main__":
    if chromium_path() is None:
        sys.exit("No Chromium found. On Debian: apt-get install chromium.")
    asyncio.run(main())
