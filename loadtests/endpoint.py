"""Questions to running servers, as a load test asks them: are you ready, what do you serve, forget your cache.

Control requests over httpx, each with a deadline and one clear error. Called by fleet.py and the commands. Not here:
model calls (stream_client.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import msgspec

_POLL_S = 0.05
_START_IT = (
    "is it running? `trieway up` starts simulated workers and a router on port 8080, "
    "`trieway simulate --port PORT` one simulated worker"
)
_Answer = TypeVar("_Answer")


class TargetError(Exception):
    """A server that does not answer as it must. Its message says what to do."""


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class _Worker(msgspec.Struct):
    id: str
    state: str = ""


class _Workers(msgspec.Struct):
    workers: list[_Worker]


async def wait_for(
    client: httpx.AsyncClient, url: str, *, ok: Callable[[httpx.Response], bool], within_s: float
) -> None:
    """Returns when `GET url` answers to `ok`'s liking. Raises TargetError after `within_s`, with the last answer."""
    until_s = time.monotonic() + within_s
    last = "no answer"
    while time.monotonic() < until_s:
        try:
            response = await client.get(url, timeout=max(0.1, until_s - time.monotonic()))
            if ok(response):
                return
            last = f"{response.status_code} {response.text[:200]}"
        except httpx.TransportError as error:
            last = _reason(error)
        await asyncio.sleep(_POLL_S)
    raise TargetError(f"{url} is not ready after {within_s:g} s; last answer: {last}")


async def served_model(client: httpx.AsyncClient, base_url: str) -> str:
    """The first model that the server lists. Raises TargetError."""
    models = await _get(client, f"{base_url}/v1/models", _Models)
    if not models.data:
        raise TargetError(f"{base_url} serves no model yet; give --model, or wait until a worker is ready")
    return models.data[0].id


async def worker_ids(client: httpx.AsyncClient, base_url: str) -> list[str]:
    """The ids of a Trieway router's workers; empty for servers that have no such list."""
    try:
        listed = await _get(client, f"{base_url}/workers", _Workers)
    except TargetError:
        return []
    return [worker.id for worker in listed.workers]


def all_ready(count: int) -> Callable[[httpx.Response], bool]:
    """Whether a router's `/workers` lists `count` workers that are ready."""

    def check(response: httpx.Response) -> bool:
        if response.status_code != 200:
            return False
        try:
            listed = msgspec.json.decode(response.content, type=_Workers).workers
        except msgspec.DecodeError:
            return False
        return sum(worker.state == "ready" for worker in listed) >= count

    return check


def is_ok(response: httpx.Response) -> bool:
    """A status of 200."""
    return response.status_code == 200


async def flush_cache(client: httpx.AsyncClient, worker_url: str, *, within_s: float = 30.0) -> None:
    """Empties a worker's prefix cache. SGLang refuses with 400 while requests run, so it is asked until it is idle.
    Raises TargetError, at once when nothing answers.
    """
    url, until_s = f"{worker_url}/flush_cache", time.monotonic() + within_s
    while True:
        response = await _answer(client, url)
        if response.status_code == 200:
            return
        if time.monotonic() > until_s:
            last = f"{response.status_code} {response.text[:200]}"
            raise TargetError(f"{url} does not empty the cache within {within_s:g} s; last answer: {last}")
        await asyncio.sleep(_POLL_S)


async def _answer(client: httpx.AsyncClient, url: str) -> httpx.Response:
    try:
        return await client.get(url)
    except httpx.TransportError as error:
        raise TargetError(f"nothing answers at {url} ({_reason(error)}); {_START_IT}") from error
    except httpx.InvalidURL as error:
        raise TargetError(f"{url!r} is not a URL: {error}") from error


async def _get(client: httpx.AsyncClient, url: str, kind: type[_Answer]) -> _Answer:
    response = await _answer(client, url)
    if response.status_code != 200:
        raise TargetError(f"{url} answered {response.status_code}: {response.text[:200]}")
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.DecodeError as error:
        raise TargetError(f"{url} does not answer as an OpenAI server does: {error}") from error


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
