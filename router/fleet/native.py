"""SGLang's native control routes through the router: one table, and how each row is answered.

A row says whether one worker answers for its model or all of them are asked, how several answers become one, and
what it does to their caches. `x-trieway-worker: ID` sends any of them to that worker alone. FastAPI; called by app.
Not here: HTTP towards workers (control_call), model calls (request).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from router.asgi import read_body
from router.errors import BodyTooLarge, InvalidField
from router.fleet.control_call import ControlCall, ControlCaller, WorkerAnswer
from router.fleet.registry import Registry
from router.fleet.response_homes import ResponseHomes
from router.knob import knob, require
from router.types import WorkerId

WORKER_HEADER = "x-trieway-worker"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeConfig:
    timeout_s: float = knob(120.0, "seconds a worker may take over a control call; a ?timeout= in its query is added")

    def __post_init__(self) -> None:
        require(self.timeout_s > 0, "timeout_s must be positive")


class Reach(Enum):
    """Who is asked."""

    ONE = "one worker answers for its model"
    HOME = "the server that made the response answers"
    ALL = "every server is asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRoute:
    """One row. `merge` makes one JSON object of several successful answers; without it equal answers become one.
    `timeout_s` is what the worker is asked to wait where the client says nothing.
    """

    path: str
    methods: tuple[str, ...]
    reach: Reach
    merge: Callable[[list[tuple[str, Json]]], Json] | None = None
    clears_cache: bool = False
    timeout_s: float | None = None


def merge_server_info(infos: list[tuple[str, Json]]) -> Json:
    """The first server's own object with the scheduler states of all, and each server's object under `workers`."""
    states = [state for _, info in infos for state in info.get("internal_states") or []]
    return {**infos[0][1], "internal_states": states, "workers": dict(infos)}


def merge_loads(reports: list[tuple[str, Json]]) -> Json:
    """The first server's envelope around the loads of all; each load says which server it is of."""
    loads = [{"worker": name, **load} for name, report in reports for load in report.get("loads") or []]
    return {**reports[0][1], "loads": loads}


FLUSH_WAIT_S = 2.0
"""A worker refuses to flush while anything runs there, and the router's own health question runs a token there."""
_GET, _POST, _BOTH = ("GET",), ("POST",), ("GET", "POST")


def _one(methods: tuple[str, ...], *paths: str) -> list[NativeRoute]:
    return [NativeRoute(path=path, methods=methods, reach=Reach.ONE) for path in paths]


def _all(methods: tuple[str, ...], *paths: str, clears_cache: bool = False) -> list[NativeRoute]:
    return [NativeRoute(path=path, methods=methods, reach=Reach.ALL, clears_cache=clears_cache) for path in paths]


NATIVE_ROUTES: tuple[NativeRoute, ...] = (
    NativeRoute(path="/v1/responses/{response_id}", methods=_GET, reach=Reach.HOME),
    NativeRoute(path="/v1/responses/{response_id}/cancel", methods=_POST, reach=Reach.HOME),
    *_one(_GET, "/model_info", "/get_model_info", "/health_generate"),
    *_one(
        _POST, "/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize", "/v1/messages/count_tokens",
        "/parse_function_call", "/separate_reasoning",
    ),
    NativeRoute(path="/server_info", methods=_GET, reach=Reach.ALL, merge=merge_server_info),
    NativeRoute(path="/get_server_info", methods=_GET, reach=Reach.ALL, merge=merge_server_info),
    NativeRoute(path="/v1/loads", methods=_GET, reach=Reach.ALL, merge=merge_loads),
    *_all(_GET, "/get_load"),
    NativeRoute(path="/flush_cache", methods=_BOTH, reach=Reach.ALL, clears_cache=True, timeout_s=FLUSH_WAIT_S),
    *_all(_BOTH, "/release_memory_occupation", clears_cache=True),
    *_all(_POST, "/update_weights_from_disk", clears_cache=True),
    *_all(_BOTH, "/resume_memory_occupation", "/start_profile", "/stop_profile", "/freeze_gc", "/slow_down",
          "/configure_logging", "/set_trace_level"),
    *_all(_POST, "/abort_request", "/pause_generation", "/continue_generation", "/load_lora_adapter",
          "/unload_lora_adapter", "/hicache/storage-backend/clear"),
    *_all(("POST", "PUT"), "/set_internal_state"),
)  # fmt: skip
"""Read in SGLang 0.5.21 to 0.5.23. Routes with state on one worker only (sessions, weight groups) are not here."""


def native_routes(
    caller: ControlCaller, registry: Registry, config: NativeConfig, max_body_bytes: int, homes: ResponseHomes
) -> APIRouter:
    """The routes of the table."""
    routes = APIRouter(tags=["native"])

    def handler(row: NativeRoute) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            call = await _read_call(request, row.timeout_s, config.timeout_s, max_body_bytes)
            if row.reach is Reach.HOME:
                return _verbatim(await _ask_home(caller, call, homes.home(request.path_params["response_id"])))
            if row.reach is Reach.ONE:
                return _verbatim(await caller.ask_one(call))
            answers = await caller.ask_all(call)
            if row.clears_cache:
                _tell_cleared(registry, answers)
            return _together(row, answers)

        return handle

    for row in NATIVE_ROUTES:
        routes.add_api_route(row.path, handler(row), methods=list(row.methods), summary=row.reach.value)
    return routes


async def _ask_home(caller: ControlCaller, call: ControlCall, home: str | None) -> WorkerAnswer:
    """The answer of the server that has the response; where that is not known, of the first that has one like it."""
    if home is not None:
        call = replace(call, worker=WorkerId(home))
    answers = await caller.ask_all(call)
    return next((answer for answer in answers if answer.ok), answers[0])


def _tell_cleared(registry: Registry, answers: list[WorkerAnswer]) -> None:
    cleared = {answer.worker.base_url for answer in answers if answer.ok}
    for worker in registry.all():
        if worker.base_url in cleared:
            registry.cache_cleared(worker)


def _together(row: NativeRoute, answers: list[WorkerAnswer]) -> Response:
    """One answer out of several. A failure is never hidden: it is the answer, or stands beside the merged ones."""
    if len(answers) == 1 and row.merge is None:
        return _verbatim(answers[0])
    failed = [answer for answer in answers if not answer.ok]
    if row.merge is not None and len(failed) < len(answers):
        objects = [(answer.worker.server, json_object(answer.body)) for answer in answers if answer.ok]
        good = [(name, found) for name, found in objects if found is not None]
        if good:
            body = row.merge(good)
            if failed:
                body["failed"] = {answer.worker.server: _shown(answer) for answer in failed}
            return _json(body, 200, answers)
    if not failed and len({(answer.body, answer.status) for answer in answers}) == 1:
        return _verbatim(answers[0], answers)
    return _json(_listing(answers, failed), _status(failed), answers)


def _listing(answers: list[WorkerAnswer], failed: list[WorkerAnswer]) -> Json:
    workers = {answer.worker.server: _shown(answer) for answer in answers}
    if not failed:
        return {"workers": workers}
    first = failed[0]
    message = (
        f"{len(failed)} of {len(answers)} workers failed; {first.worker.server} answered {first.status}: "
        f"{_text(first.body)}"
    )
    error = {"message": message, "type": "server_error", "param": None, "code": "worker_error", "source": "worker"}
    return {"error": error, "workers": workers}


def _status(failed: list[WorkerAnswer]) -> int:
    statuses = {answer.status for answer in failed}
    return 200 if not statuses else statuses.pop() if len(statuses) == 1 else 502


def _shown(answer: WorkerAnswer) -> Json:
    found = json_object(answer.body)
    return {"status": answer.status, "body": _text(answer.body) if found is None else found}


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()[:2000]


def _verbatim(answer: WorkerAnswer, among: list[WorkerAnswer] | None = None) -> Response:
    """A worker's answer as it is; one that could not be reached as an error in OpenAI's shape."""
    if not answer.reached:
        return _json(_listing([answer], [answer]), answer.status, [answer])
    headers = {} if answer.content_type is None else {"content-type": answer.content_type}
    return Response(answer.body, answer.status, headers={**headers, **_answered_by(among or [answer])})


def _json(body: Json, status: int, answers: list[WorkerAnswer]) -> Response:
    return Response(json.dumps(body), status, headers=_answered_by(answers), media_type="application/json")


def _answered_by(answers: list[WorkerAnswer]) -> dict[str, str]:
    names = ", ".join(answer.worker.server for answer in answers)
    return {WORKER_HEADER: names.encode("ascii", "replace").decode()}


def json_object(body: bytes) -> Json | None:
    """The JSON object in `body`, or None when there is something else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


async def _read_call(request: Request, wait_s: float | None, timeout_s: float, max_body_bytes: int) -> ControlCall:
    body = await read_bounded(request, max_body_bytes)
    model = (json_object(body) or {}).get("model") if body else None
    query, asked_s = request.url.query, _asked_timeout_s(request)
    if asked_s is None:
        asked_s = wait_s or 0.0
        if wait_s is not None:
            query = f"{query}&timeout={wait_s:g}".lstrip("&")
    named = request.headers.get(WORKER_HEADER)
    return ControlCall(
        method=request.method,
        target=request.scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        headers=request.headers,
        body=body,
        timeout_s=timeout_s + asked_s,
        model=model if isinstance(model, str) and model else None,
        worker=WorkerId(named) if named else None,
    )


def _asked_timeout_s(request: Request) -> float | None:
    """Seconds that the worker itself was asked to wait (`/flush_cache?timeout=60`), at most an hour."""
    given = request.query_params.get("timeout")
    if given is None:
        return None
    try:
        asked_s = float(given)
    except ValueError as error:
        raise InvalidField(f"timeout must be a number of seconds, got {given!r}.", param="timeout") from error
    return min(max(asked_s, 0.0), 3600.0) if asked_s == asked_s else 0.0


async def read_bounded(request: Request, max_body_bytes: int) -> bytes:
    """The whole body of a control call. Raises BodyTooLarge past the limit, ClientDisconnect without its end."""

    def too_large() -> BodyTooLarge:
        return BodyTooLarge(f"The body is over the limit of {max_body_bytes:,} bytes (--max-body-bytes).")

    body = await read_body(request.receive, max_body_bytes, too_large)
    if body is None:
        raise ClientDisconnect
    return body
