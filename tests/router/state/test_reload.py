"""A configuration that changes while the router runs: applied whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.app import create_app
from router.config import load_config
from router.security.client import Client
from router.security.keys_file import entry
from router.state import reload
from router.state.reload import ConfigSource


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trieway.toml"


class App:
    """A router over ASGI without a socket, whose workers are never reached."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def workers(self) -> dict[str, str]:
        return {each["id"]: each["url"] for each in (await self.client.get("/workers")).json()["workers"]}

    async def reloads(self, result: str) -> float:
        lines = (await self.client.get("/metrics")).text.splitlines()
        found = f'trieway_config_reloads_total{{result="{result}"}} '
        return next(float(line[len(found) :]) for line in lines if line.startswith(found))

    async def until_reloaded(self, result: str, count: int) -> None:
        async with asyncio.timeout(20):
            while await self.reloads(result) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def app(file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    monkeypatch.setattr(reload, "LOOK_S", 0.01)
    file.write_text('worker = ["a=http://127.0.0.1:1", "b=http://127.0.0.1:2"]\n')
    config = load_config(file, {})
    made = create_app(config, source=ConfigSource(read=lambda: load_config(file, {}), file=file))
    async with Lifespan(made), httpx.AsyncClient(
        transport=httpx.ASGITransport(made), base_url="http://t"
    ) as client:
        yield App(client)


class Lifespan:
    """ASGI's start and stop around a block."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self._messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._sent: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._app({"type": "lifespan"}, self._messages.get, self._sent.put))
        await self._messages.put({"type": "lifespan.startup"})
        assert (await self._sent.get())["type"] == "lifespan.startup.complete"

    async def __aexit__(self, *error: object) -> None:
        await self._messages.put({"type": "lifespan.shutdown"})
        await self._task


async def test_a_changed_file_is_applied_by_itself_and_what_was_added_by_hand_stays(app: App, file: Path) -> None:
    await app.client.post("/workers", json={"url": "http://127.0.0.1:9", "id": "mine"})
    file.write_text('worker = ["b=http://127.0.0.1:2", "c=http://127.0.0.1:3"]\n[admission]\nmax_in_flight = 7\n')
    await app.until_reloaded("applied", 1)

    assert await app.workers() == {
        "b": "http://127.0.0.1:2", "mine": "http://127.0.0.1:9", "c": "http://127.0.0.1:3",
    }  # fmt: skip
    assert (await app.client.get("/queue")).json()["room"] == 7


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('worker = ["c=http://127.0.0.1:3"]\n[admission]\nmax_in_flight = -1\n', "max_in_flight"),
        ('worker = ["c=http://127.0.0.1:3"]\nnonsense = 1\n', "nonsense"),
        ('worker = ["c=http://127.0.0.1:3"]\n[security]\napi_keys_file = "/no/such/file"\n', "/no/such/file"),
        ('worker = ["c=http://127.0.0.1:3"]\n[security]\nworker_network = ["x"]\n', "worker_network"),
        ('worker = ["c=nonsense"]\n', "nonsense"),
        ('worker = ["c=http://127.0.0.1:3", "c=http://127.0.0.1:4"]\n', "twice"),
        ("worker = [", "not valid TOML"),
    ],
)
async def test_a_bad_file_changes_nothing_and_the_log_says_why(
    text: str, why: str, app: App, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = await app.workers()
    file.write_text(text)
    await app.until_reloaded("refused", 1)

    assert await app.workers() == before
    assert (await app.client.get("/queue")).json()["room"] == 2048
    assert why in caplog.text


async def test_after_a_bad_file_a_good_one_is_applied(app: App, file: Path) -> None:
    file.write_text("worker = [")
    await app.until_reloaded("refused", 1)
    file.write_text('worker = ["c=http://127.0.0.1:3"]\n')
    await app.until_reloaded("applied", 1)

    assert list(await app.workers()) == ["c"]


async def test_what_needs_a_restart_is_named(app: App, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text(file.read_text() + 'policy = "round_robin"\n[server]\nport = 9999\n')
    await app.until_reloaded("applied", 1)

    assert "policy, server.port" in caplog.text


async def test_keys_are_taken_up_when_their_file_changes(app: App, file: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(entry("one", Client(name="one", admin=True)))
    file.write_text(file.read_text() + f'[security]\napi_keys_file = "{keys}"\n')
    await app.until_reloaded("applied", 1)
    closed = (await app.client.get("/workers")).status_code
    with_one = (await app.client.get("/workers", headers={"authorization": "Bearer one"})).status_code
    keys.write_text(entry("two", Client(name="two", admin=True)))
    await app.until_reloaded("applied", 2)
    revoked = (await app.client.get("/workers", headers={"authorization": "Bearer one"})).status_code

    assert (closed, with_one, revoked) == (401, 200, 401)
