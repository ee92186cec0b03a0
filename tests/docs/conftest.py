"""The fleet that the pages' commands meet: three simulated workers, and a router before the first two."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ports import free_ports
from served import Server

PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of every command: our programs first, and nothing of TRIEWAY_ that this shell happens to have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIEWAY_")}
    return {**kept, "PATH": f"{PROGRAMS}:{kept.get('PATH', '')}", "COLUMNS": "160"}


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[dict[int, int]]:
    """The documented ports, and where they are here."""
    folder = tmp_path_factory.mktemp("fleet")
    ports = dict(zip((30_000, 30_001, 30_002, 8080), free_ports(4), strict=True))
    servers: list[Server] = []
    try:
        for number in (30_000, 30_001, 30_002):
            command = f"trieway simulate --port {ports[number]} --speed 20 --log-level warning"
            servers.append(Server(command, f"http://127.0.0.1:{ports[number]}/v1/models", folder, environment))
        named = " ".join(f"--worker http://127.0.0.1:{ports[number]}" for number in (30_000, 30_001))
        log = folder.parent / "decision-log"
        command = f"trieway serve --port {ports[8080]} {named} --decision-log-dir {log} --health-warm-s 0"
        servers.append(Server(command, f"http://127.0.0.1:{ports[8080]}/ready", folder, environment))
        ports[8081] = ports[8080]
        first_requests(f"http://127.0.0.1:{ports[8080]}")
        yield ports
    finally:
        for server in reversed(servers):
            server.stop()


def first_requests(router: str) -> None:
    """So that there is something to explain, to draw and to replay. Returns when the decision log holds them."""
    body = {"messages": [{"role": "user", "content": "Hello " * 200}], "max_tokens": 2}
    for _ in range(3):
        httpx.post(f"{router}/v1/chat/completions", json=body, timeout=30).raise_for_status()
    deadline = time.monotonic() + 30
    while "trieway_decision_log_written_total 3.0" not in httpx.get(f"{router}/metrics", timeout=30, verify=False).text:
        assert time.monotonic() < deadline, "the decision log was not written"
        time.sleep(0.1)
