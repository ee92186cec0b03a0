"""Admin routes: list, add, drain and remove workers. FastAPI; called by app. State changes go through the registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from router.clock import Clock
from router.errors import InvalidBody, InvalidField
from router.fleet.api_keys import authorization, is_key
from router.fleet.kv_feed import FeedState
from router.fleet.native import json_object, read_bounded
from router.fleet.registry import Registry, clean_url
from router.fleet.worker import Worker
from router.types import LoadReport

MAX_BODY_BYTES = 64 * 2**10


def worker_view(worker: Worker, now_s: float) -> dict[str, Any]:
    """What `/workers` says of one worker. No secrets."""
    load, facts = worker.load, worker.facts
    return {
        "id": worker.id,
        "server": worker.server,
        "rank": worker.rank,
        "url": worker.base_url,
        "state": worker.state.value,
        "reason": worker.state_reason,
        "since_s": round(now_s - worker.state_since_s, 3),
        "breaker": worker.vitals.breaker.state.value,
        "warming": worker.warm_from_s is not None,
        "in_flight": worker.in_flight,
        "has_api_key": any(name == "authorization" for name, _ in worker.extra_headers),
        "models": sorted(worker.models) if worker.models is not None else None,
        "load": None if load is None else {**_load_view(load), "age_s": round(now_s - load.at_s, 3)},
        "version": facts.version if facts else None,
        "page_tokens": facts.page_tokens if facts else None,
        "capacity_tokens": load.capacity_tokens if load else facts.capacity_tokens if facts else None,
        "reports_cached_tokens": worker.reports_cached,
        "publishes_kv_events": facts is not None and facts.kv_events is not None,
        "kv_events": None if worker.kv_feed is None else _feed_view(worker.kv_feed),
    }


def _history(worker: Worker, now_s: float) -> list[dict[str, Any]]:
    """Its last changes of state, oldest first."""
    return [
        {"worker": worker.id, "state": state.value, "reason": why, "ago_s": round(now_s - at_s, 3)}
        for at_s, state, why in worker.history
    ]


def _feed_view(feed: FeedState) -> dict[str, Any]:
    return {"usable": feed.usable, "messages": feed.messages, "gaps": feed.gaps, "blocks": feed.blocks}


def _load_view(load: LoadReport) -> dict[str, Any]:
    return {
        "running": load.running,
        "waiting": load.waiting,
        "waiting_uncached_tokens": load.waiting_uncached_tokens,
        "used_tokens": load.used_tokens,
        "token_usage": load.token_usage,
        "max_running": load.max_running,
    }


def _views(workers: Sequence[Worker], now_s: float) -> dict[str, Any]:
    """One worker as it is; the ranks of a server that was named as a list."""
    if len(workers) == 1:
        return worker_view(workers[0], now_s)
    return {"workers": [worker_view(worker, now_s) for worker in workers]}


async def anywhere(url: str) -> None:
    """Lets a worker be added at any URL."""


def admin_routes(
    registry: Registry, clock: Clock, check_url: Callable[[str], Awaitable[None]] = anywhere
) -> APIRouter:
    """`/workers` and what is below it. `check_url` raises RouterError for a URL that no worker may have."""
    routes = APIRouter(prefix="/workers", tags=["workers"])

    @routes.get("")
    async def list_workers() -> dict[str, Any]:
        now_s = clock()
        return {"workers": [worker_view(worker, now_s) for worker in registry.all()]}

    @routes.get("/{worker_id}")
    async def show_worker(worker_id: str) -> dict[str, Any]:
        workers, now_s = registry.named(worker_id), clock()
        return {**_views(workers, now_s), "history": [each for worker in workers for each in _history(worker, now_s)]}

    @routes.post("", status_code=201)
    async def add_worker(request: Request) -> JSONResponse:
        url, name, key = _wanted(await _json_object(request))
        await check_url(clean_url(url))
        worker = registry.add(url, name, authorization(key))
        return JSONResponse(worker_view(worker, clock()), status_code=201)

    @routes.post("/{worker_id}/drain")
    async def drain_worker(worker_id: str) -> dict[str, Any]:
        workers = registry.named(worker_id)
        for worker in workers:
            registry.drain(worker)
        return _views(workers, clock())

    @routes.delete("/{worker_id}")
    async def remove_worker(worker_id: str) -> dict[str, Any]:
        workers = registry.named(worker_id)
        for worker in workers:
            registry.remove(worker)
        return _views(workers, clock())

    return routes


async def _json_object(request: Request) -> dict[str, Any]:
    data = json_object(await read_bounded(request, MAX_BODY_BYTES))
    if data is None:
        raise InvalidBody('The body must be a JSON object like {"url": "http://127.0.0.1:30000"}.')
    return data


def _wanted(data: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """URL, name and API key. The key stands in no error."""
    for field in data:
        if field not in ("url", "id", "api_key"):
            raise InvalidField(
                f"Unknown field {field!r}. A worker has 'url' and, if you like, 'id' and 'api_key'.", param=field
            )
    url, name, key = data.get("url"), data.get("id"), data.get("api_key")
    if not isinstance(url, str):
        raise InvalidField("The body needs 'url': a worker's URL like http://127.0.0.1:30000.", param="url")
    if name is not None and (not isinstance(name, str) or not name or len(name) > 64 or not name.isprintable()):
        raise InvalidField("'id' must be a printable name of 1 to 64 characters.", param="id")
    if key is not None and not (isinstance(key, str) and is_key(key)):
        raise InvalidField("'api_key' must be one word of printable characters.", param="api_key")
    return url, name, key
