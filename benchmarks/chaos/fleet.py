"""The processes under test: simulated workers and the router, started, killed and looked into. Linux only (/proc)."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

READY_S = 90.0
ROUTER_FLAGS = (
    "--log-level", "warning", "--health-stall-s", "3", "--health-interval-s", "1", "--breaker-open-s", "0.5",
    "--breaker-trial-timeout-s", "3", "--forward-keepalive-s", "2", "--health-warm-s", "2",
    "--forward-first-byte-timeout-s", "15",
)  # fmt: skip
"""A day's patience would make a short run prove nothing; the rest are defaults."""


def free_ports(count: int) -> list[int]:
    """Ports that were free just now, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Fleet:
    """`count` workers and one router before them."""

    def __init__(self, count: int, session: aiohttp.ClientSession, log: Path, flags: tuple[str, ...] = ()) -> None:
        *self.ports, self.router_port = free_ports(count + 1)
        self.url = f"http://127.0.0.1:{self.router_port}"
        self.names = [f"w{i + 1}" for i in range(count)]
        self._session = session
        self._flags = flags
        self._log = log.open("ab")
        self.workers: list[subprocess.Popen[bytes]] = []
        self.router: subprocess.Popen[bytes] | None = None

    def worker_url(self, index: int) -> str:
        return f"http://127.0.0.1:{self.ports[index]}"

    async def start(self) -> None:
        self.workers = [self._start_worker(index) for index in range(len(self.ports))]
        for index in range(len(self.ports)):
            await self.until_ok(self.worker_url(index) + "/v1/models")
        self.start_router()
        await self.until_ready(len(self.ports))

    def start_router(self) -> None:
        argv = ["-m", "router", "serve", "--port", str(self.router_port), *ROUTER_FLAGS, *self._flags]
        for index, name in enumerate(self.names):
            argv += ["--worker", f"{name}={self.worker_url(index)}"]
        self.router = self._start(argv)

    def _start_worker(self, index: int) -> subprocess.Popen[bytes]:
        return self._start(
            ["-m", "workers", "simulate", "--port", str(self.ports[index]), "--speed", "20", "--log-level", "error"]
        )

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
        await self.call("POST", f"{self.url}/workers/{name}/drain")
        await self.until_idle(name)
        await self.call("DELETE", f"{self.url}/workers/{name}")
        await self.call("POST", f"{self.url}/workers", {"url": self.worker_url(index), "id": name})

    async def until_idle(self, name: str) -> None:
        """Until nothing of the router's runs on that worker."""
        async with asyncio.timeout(READY_S):
            while any(each["id"] == name and each["in_flight"] for each in await self.seen()):
                await asyncio.sleep(0.05)

    def open_files(self) -> int:
        """File descriptors of the router."""
        assert self.router is not None
        return sum(1 for _ in Path(f"/proc/{self.router.pid}/fd").iterdir())

    def stop(self) -> None:
        children = [*self.workers, *([self.router] if self.router else [])]
        for child in children:
            child.send_signal(signal.SIGKILL if child is not self.router else signal.SIGTERM)
        for child in children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._log.close()
