"""The processes under test: simulated workers and the router, started, killed and looked into. Linux only (/proc).

The first workers stand behind relays, which can be held. The router keeps its state in a file beside the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from relay import Relay
from schedule import WITH_RELAY

READY_S = 90.0
STOP_S = 60.0
ROUTER_FLAGS = (
    "--log-level", "warning", "--health-stall-s", "3", "--health-interval-s", "1", "--breaker-open-s", "0.5",
    "--breaker-trial-timeout-s", "3", "--forward-keepalive-s", "2", "--health-warm-s", "2",
)  # fmt: skip
"""A day's patience would make a short run prove nothing; the rest are defaults."""


REMEMBERED = 0.25
"""Share of the index that a restarted router has at once: up to three workers in trouble may have lost their caches."""
PORTS = (20_000, 32_000)
"""Below those that the kernel takes for outgoing connections: a worker that is away must find its port free again."""
COUNTED = re.compile(r'^trieway_(retries|requests)_total\{(?:.*?error="([^"]*)")?.*?\} ([0-9.e+]+)$', re.MULTILINE)


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, all different."""
    rng, found = Random(), set[int]()
    while len(found) < count:
        port = rng.randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return list(found)


class Fleet:
    """`count` workers, `speed` times as fast as their GPU, and one router before them.

    `restart_ended_s` is when the router last came back. `settings` are the router's flags, to which `flags` are added;
    the first `relays` workers stand behind one.
    """

    def __init__(
        self,
        count: int,
        session: aiohttp.ClientSession,
        log: Path,
        flags: tuple[str, ...] = (),
        *,
        settings: tuple[str, ...] = ROUTER_FLAGS,
        speed: float = 20.0,
        relays: int = WITH_RELAY,
    ) -> None:
        *self.ports, self.router_port = free_ports(count + 1)
        self.url = f"http://127.0.0.1:{self.router_port}"
        self.names = [f"w{i + 1}" for i in range(count)]
        self.relays = [Relay(port) for port in self.ports[:relays]]
        self._session = session
        self._state = log.with_suffix(".state")
        self._state.unlink(missing_ok=True)
        self._flags = (*settings, *flags)
        self._speed = speed
        self._log = log.open("ab")
        self._alone = asyncio.Lock()
        self.workers: list[subprocess.Popen[bytes]] = []
        self._guests: list[subprocess.Popen[bytes]] = []
        self.router: subprocess.Popen[bytes] | None = None
        self.router_away = False
        self.restart_ended_s = 0.0
        self.restarts = 0
        self.wrong: list[str] = []
        self.counted: Counter[str] = Counter()

    def worker_url(self, index: int) -> str:
        return f"http://127.0.0.1:{self.ports[index]}"

    def routed_url(self, index: int) -> str:
        """Where the router finds the worker: at its relay if it has one."""
        return f"http://127.0.0.1:{self.relays[index].port}" if index < len(self.relays) else self.worker_url(index)

    async def start(self) -> None:
        self.workers = [self._start_worker(index) for index in range(len(self.ports))]
        for index in range(len(self.ports)):
            await self.until_ok(self.worker_url(index) + "/v1/models")
        for relay, port in zip(self.relays, free_ports(len(self.relays)), strict=True):
            await relay.start(port)
        self.start_router()
        await self.until_ready(len(self.ports))

    def start_router(self) -> None:
        self.router = self._start([*self._argv(self.router_port), "--state-file", str(self._state)])

    def start_twin(self) -> str:
        """Another router before the same workers, to compare with; its URL."""
        [port] = free_ports(1)
        self._guests.append(self._start(self._argv(port)))
        return f"http://127.0.0.1:{port}"

    def _argv(self, port: int) -> list[str]:
        argv = ["-m", "router", "serve", "--port", str(port), *self._flags]
        for index, name in enumerate(self.names):
            argv += ["--worker", f"{name}={self.routed_url(index)}"]
        return argv

    async def restart_router(self) -> None:
        """SIGTERM, wait until it has finished what runs, and start it again with what it had learned."""
        async with self._alone:
            assert self.router is not None
            await self.count()
            before = await self.remembered_blocks()
            self.router_away = True
            code = await self.stop_router()
            if code not in (0, -signal.SIGTERM):
                self.wrong.append(f"the router ended with {code} when it was told to stop")
            self.start_router()
            await self.until_ok(self.url + "/health")
            self.router_away, self.restart_ended_s = False, time.monotonic()
            self.restarts += 1
            after = await self.remembered_blocks()
            if after < REMEMBERED * before:
                self.wrong.append(f"a router that remembered {before} blocks remembers {after} after its restart")

    async def stop_router(self) -> int | None:
        """Its exit code; None when it had to be killed."""
        assert self.router is not None
        self.router.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.router.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.router.kill()
            self.router.wait()
            return None

    def _start_worker(self, index: int) -> subprocess.Popen[bytes]:
        return self._start_simulated(self.ports[index])

    def _start_simulated(self, port: int) -> subprocess.Popen[bytes]:
        argv = ["--port", str(port), "--speed", f"{self._speed:g}", "--log-level", "error"]
        return self._start(["-m", "workers", "simulate", *argv])

    def _start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    async def until_ok(self, url: str) -> None:
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    async with self._session.get(url) as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def until_ready(self, count: int) -> None:
        """Until that many workers are ready in the router's eyes."""
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    if sum(each["state"] == "ready" for each in await self.seen()) >= count:
                        return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def metrics(self) -> str:
        async with self._session.get(self.url + "/metrics") as answer:
            return await answer.text()

    async def count(self) -> None:
        """Add what the router that is about to go has counted."""
        for name, error, value in COUNTED.findall(await self.metrics()):
            self.counted["retries" if name == "retries" else f"ended: {error or 'well'}"] += int(float(value))

    async def remembered_blocks(self) -> int:
        found = re.findall(r"^trieway_index_blocks\{.*\} ([0-9.e+]+)$", await self.metrics(), re.MULTILINE)
        return int(sum(map(float, found)))

    async def queue(self) -> dict[str, Any]:
        async with self._session.get(self.url + "/queue") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def seen(self) -> list[dict[str, Any]]:
        """The workers as the router sees them."""
        async with self._session.get(self.url + "/workers") as answer:
            found: list[dict[str, Any]] = (await answer.json())["workers"]
            return found

    async def call(self, method: str, url: str, body: Any = None) -> int:
        """The status; 0 when nobody answers."""
        try:
            async with self._session.request(method, url, json=body) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    def kill_worker(self, index: int) -> None:
        self.workers[index].send_signal(signal.SIGKILL)
        self.workers[index].wait()

    async def revive(self, index: int) -> None:
        """Start the worker again if it is dead, and take all faults from it."""
        if self.workers[index].poll() is not None:
            self.workers[index] = self._start_worker(index)
            await self.until_ok(self.worker_url(index) + "/v1/models")
        await self.call("DELETE", self.worker_url(index) + "/simulated/faults")

    async def drain_and_return(self, index: int) -> None:
        """Drain, wait until nothing runs there, remove, add again under its name."""
        name = self.names[index]
        async with self._alone:
            await self.call("POST", f"{self.url}/workers/{name}/drain")
            await self.until_idle(name)
            await self.call("DELETE", f"{self.url}/workers/{name}")
            await self.call("POST", f"{self.url}/workers", {"url": self.routed_url(index), "id": name})

    async def add_and_remove(self, for_s: float) -> None:
        """A worker more for a time, which then is drained, removed and stopped."""
        async with self._alone, self._guest() as url:
            await self.call("POST", f"{self.url}/workers", {"url": url, "id": "guest"})
            await asyncio.sleep(for_s)
            await self.call("POST", f"{self.url}/workers/guest/drain")
            await self.until_idle("guest")
            await self.call("DELETE", f"{self.url}/workers/guest")

    @contextlib.asynccontextmanager
    async def _guest(self) -> AsyncIterator[str]:
        [port] = free_ports(1)
        process = self._start_simulated(port)
        self._guests.append(process)
        await self.until_ok(f"http://127.0.0.1:{port}/v1/models")
        yield f"http://127.0.0.1:{port}"
        process.kill()
        await asyncio.to_thread(process.wait)

    async def partition(self, index: int, for_s: float) -> None:
        """Nothing gets through to or from the worker for a time, and nobody is told."""
        self.relays[index].hold()
        await asyncio.sleep(for_s)
        self.relays[index].release()

    async def until_idle(self, name: str) -> None:
        """Until nothing of the router's runs on that worker."""
        async with asyncio.timeout(READY_S):
            while any(each["id"] == name and each["in_flight"] for each in await self.seen()):
                await asyncio.sleep(0.05)

    def open_files(self) -> int:
        """File descriptors of the router."""
        assert self.router is not None
        return sum(1 for _ in Path(f"/proc/{self.router.pid}/fd").iterdir())

    @property
    def pid(self) -> int:
        """Of the router."""
        assert self.router is not None
        return self.router.pid

    @property
    def twin_pid(self) -> int:
        """Of the last guest, such as a twin of the router."""
        return self._guests[-1].pid

    def memory_mib(self) -> float:
        """Resident memory of the router."""
        assert self.router is not None
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.router.pid}/status").read_text("utf-8"))
        return round(int(found[1]) / 1024, 1) if found else 0.0

    def stop(self) -> None:
        for relay in self.relays:
            relay.close()
        children = [*self.workers, *self._guests, *([self.router] if self.router else [])]
        for child in children:
            child.send_signal(signal.SIGKILL if child is not self.router else signal.SIGTERM)
        for child in children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._log.close()
