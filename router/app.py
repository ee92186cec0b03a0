"""Composition root: configuration in, ASGI app out. The only file that builds objects, with insight for what watches.

Model calls take the lean path (request.endpoints); everything else is FastAPI. Called by cli and by tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from router.admission.admission import Admission
from router.admission.door import Door
from router.admission.hold import Hold
from router.admission.retry import RetryBudget
from router.admission.routes import queue_routes
from router.asgi import ASGIApp
from router.clock import Clock, monotonic
from router.compiled import how_it_runs
from router.config import RouterConfig
from router.errors import (
    InternalError,
    InvalidField,
    MethodNotAllowed,
    NoWorker,
    RouterError,
    UnknownModel,
    UnknownPath,
)
from router.fleet.admin import admin_routes
from router.fleet.api_keys import authorization, check_names, read_keys
from router.fleet.control_call import ControlCaller
from router.fleet.kv_events import KvEvents
from router.fleet.native import native_routes
from router.fleet.registry import Registry
from router.fleet.response_homes import ResponseHomes
from router.fleet.worker import WorkerState
from router.insight import Insight
from router.lead import Lead
from router.policies import build_policy
from router.policies.remembers import index_blocks_of
from router.request.dispatch import Dispatcher
from router.request.endpoints import MODEL_CALLS, ModelCalls
from router.request.exact import ExactMatcher
from router.request.forward import Forwarder
from router.request.over_asgi import Split
from router.request.record import Recorder
from router.security.access import Access
from router.security.guard import Guard
from router.security.networks import Networks
from router.security.tls import worker_context
from router.state.keeper import StateKeeper
from router.state.live import Live, networks_of, split_worker
from router.state.reload import ConfigSource, Reloader
from router.telemetry.guard_metrics import GuardCollector
from router.telemetry.metrics import Metrics
from router.types import WorkerChanged, WorkerJoined, WorkerLeft

if TYPE_CHECKING:
    from router.processes.line import Line

CONTROL_TIMEOUT_S = 10.0


def trieway_version() -> str:
    try:
        return version("trieway")
    except PackageNotFoundError:
        return "0+unknown"


def create_app(
    config: RouterConfig, clock: Clock = monotonic, door: Door | None = None, source: ConfigSource | None = None,
    line: Line | None = None,
) -> ASGIApp:  # fmt: skip
    """The router as an ASGI app. Raises ConfigError for what cannot be served. Two apps can live in one process.

    Whoever closes `door` makes it refuse new work. With a `source` it reloads its configuration when that changes. With
    a `line` it is one of several processes of one router.
    """
    door = door or Door()
    access = Access.of(config.security)
    admission = Admission(config.admission, clock) if line is None else line.admission(config.admission, clock)
    door.busy = lambda: admission.queue.running + admission.queue.waiting
    registry = Registry(clock, config.health, config.breaker)
    rng = Random(config.seed)
    policy = build_policy(config.policy, config.policies, rng)
    insight = Insight(config, policy, registry, rng=rng, clock=clock, version=trieway_version())
    homes = ResponseHomes() if line is None else line.homes
    events = KvEvents(config.kv_events, registry)
    exact = ExactMatcher(config.exact, events, registry) if config.exact.enabled else None
    retries = RetryBudget(config.retry, rng)
    hold = Hold(config.hold, clock)
    guards = GuardCollector(registry, admission, retries, hold)
    collectors = (insight.collector, guards)
    metrics = Metrics(
        registry, insight.backlog, clock, lambda: index_blocks_of(policy), lambda: exact.results if exact else {},
        *collectors,
    )  # fmt: skip
    tls = worker_context(config.security)
    forwarder = Forwarder(config.forward, tls)
    sinks, body_sinks = insight.sinks, insight.body_sinks
    replica = line.replica(registry, insight, hold, policy, config.policy, metrics, clock) if line else None
    if replica:
        sinks, body_sinks = [*sinks, replica.ended], [replica.logged] if body_sinks else []
    recorder = Recorder(policy_name=config.policy, registry=registry, sinks=sinks, body_sinks=body_sinks, clock=clock)
    dispatcher = Dispatcher(
        config=config.dispatch,
        key_config=config.prompt_key,
        registry=registry,
        steering=insight.steering,
        explainer=insight.explainer,
        forwarder=forwarder,
        recorder=recorder,
        clock=clock,
        exact=exact,
        homes=homes,
        retries=retries,
        access=access,
        admission=admission,
        hold=hold,
        door=door,
    )
    if exact:
        exact.check()
    _listen(registry, hold, guards, admission)
    _add_workers(config, registry)
    keeper = StateKeeper(config.state, registry, policy, config.policy, clock) if config.state.file else None
    lead = Lead(config, registry, insight, keeper, clock)
    if line is None:
        lead.listen()
        lead.take_up()
    networks = networks_of(config)
    client = httpx.AsyncClient(verify=tls, timeout=CONTROL_TIMEOUT_S, limits=httpx.Limits(max_connections=None))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if exact:
            await exact.load()
        async with client, asyncio.TaskGroup() as tasks:
            await forwarder.start()
            running: set[asyncio.Task[None]] = set()

            def spawn(work: Coroutine[Any, Any, None]) -> object:
                task = tasks.create_task(work)
                running.add(task)
                task.add_done_callback(running.discard)
                return task

            live = Live(config, registry, dispatcher, admission, hold.queue, access, networks)
            reloader = Reloader(source, config, live, guards.reloaded) if source else None

            insight.run(spawn, client)
            if exact:
                spawn(events.run())
            begin_to_lead = partial(lead.run, spawn, client, forwarder.get, reloader)
            if line:
                await line.join(lead, begin_to_lead, live, reloader, spawn)
            else:
                begin_to_lead()
            try:
                yield
            finally:
                for task in list(running):
                    task.cancel()
                if keeper and not (replica and not replica.leads):
                    keeper.save()
                await forwarder.close()
                if exact:
                    exact.close()

    render = replica.render if replica else metrics.render
    control = _control_app(config, registry, render, clock, lifespan, door, networks)
    control.include_router(queue_routes(admission, replica.held if replica else hold.view))
    for routes in insight.routes():
        control.include_router(routes)
    caller, max_body_bytes = ControlCaller(registry, client), config.server.max_body_bytes
    control.include_router(native_routes(caller, registry, config.native, max_body_bytes, homes))
    guarded = Guard(line.front(control) if line else control, access, open_metrics=config.security.open_metrics)
    return Split(ModelCalls(dispatcher, config.server.max_body_bytes, clock, insight.tracer), guarded)


def _listen(registry: Registry, hold: Hold, guards: GuardCollector, admission: Admission) -> None:
    """Who hears of the fleet after the policies, which must know of an event before a held request is decided again."""
    registry.listen(hold.observe, *Hold.HEARS)
    registry.listen(guards.observe, WorkerChanged, WorkerLeft)
    registry.listen(lambda _: admission.resize(len(registry.all())), WorkerJoined, WorkerLeft)


def _add_workers(config: RouterConfig, registry: Registry) -> None:
    """The configured workers, each with its key. Raises ConfigError."""
    keys = read_keys(config.worker_api_key_file)
    for spec in config.worker:
        name, url = split_worker(spec)
        worker = registry.add(url, name)
        worker.extra_headers = authorization(keys.get(worker.server, keys.get(None)))
    check_names(keys, [worker.server for worker in registry.all()])


def _control_app(
    config: RouterConfig,
    registry: Registry,
    render: Callable[[], bytes],
    clock: Clock,
    lifespan: object,
    door: Door,
    networks: Networks,
) -> FastAPI:
    app = FastAPI(title="Trieway", version=trieway_version(), lifespan=lifespan)  # type: ignore[arg-type]
    app.include_router(admin_routes(registry, clock, networks.check))
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, object]:
        door.check()
        count = sum(worker.state is WorkerState.READY for worker in registry.all())
        if not count:
            raise NoWorker("No worker is ready. See GET /workers for the reasons.", retry_after_s=1)
        return {"status": "ready", "ready_workers": count, "workers": len(registry.all())}

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/version")
    async def show_version() -> dict[str, str]:
        return {"name": "trieway", "version": trieway_version(), "policy": config.policy, "code": how_it_runs()}

    @app.get("/ping")
    async def ping() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": list(registry.model_cards().values())}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, object]:
        cards = registry.model_cards()
        if name not in cards:
            raise UnknownModel(f"The model {name!r} is not served here. Models: {', '.join(cards)}.", param="model")
        return cards[name]

    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error of the control routes in OpenAI's shape."""

    def shaped(error: RouterError) -> Response:
        headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s is not None else {}
        if error.closes:
            headers["connection"] = "close"
        return Response(error.body(), status_code=error.status, media_type="application/json", headers=headers)

    @app.exception_handler(RouterError)
    async def ours(request: Request, error: RouterError) -> Response:
        if error.code == "config_error":  # a bad worker URL in an admin call is the client's
            return JSONResponse(
                {"error": {"message": error.message, "type": "invalid_request_error", "param": error.param,
                           "code": "invalid_field", "source": "client"}},
                status_code=400,
            )  # fmt: skip
        return shaped(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return shaped(InvalidField(f"{where}: {first['msg']}.", param=str(first["loc"][-1])))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return shaped(InternalError(f"The router failed: {type(error).__name__}. Its log says more."))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 405 or path in MODEL_CALLS:
            return shaped(MethodNotAllowed(f"{request.method} is not possible on {path}. See /docs."))
        return shaped(UnknownPath(f"There is nothing at {path}. See /docs for the routes and /v1/models for models."))
