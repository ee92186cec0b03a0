"""Membership and eligibility: which workers exist, which may take a request, and what happened to them.

The only writer of a worker's state. Emits FleetEvents to its listeners in the order in which things happen. Used by
request.dispatch (eligible, lease), fleet.health and fleet.admin. Not here: probes, HTTP, policies.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from router.clock import Clock
from router.errors import ConfigError, NoWorker, RouterError, UnknownModel, UnknownWorker, WorkerExists, WorkerTimeout
from router.fleet.breaker import BreakerConfig, BreakerState
from router.fleet.call_off import CallOff
from router.fleet.eligibility import chosen, needs_care, on_trial
from router.fleet.lease import Lease
from router.fleet.server_info import ServerFacts
from router.fleet.state import WorkerState
from router.fleet.vitals import HealthConfig
from router.fleet.worker import Worker
from router.records import FleetEvent
from router.types import CacheCleared, LoadReport, LoadReported, WorkerChanged, WorkerId, WorkerJoined, WorkerLeft

log = logging.getLogger(__name__)

RANK_HEADER = "x-data-parallel-rank"
"""How SGLang is told which data-parallel rank shall serve a request (OpenAI routes, since 0.5.10)."""

Listener = Callable[[FleetEvent], None]


class _Listeners(dict[type, tuple[Listener, ...]]):
    """Who hears events of a kind, in the order in which they began to listen."""

    def __init__(self) -> None:
        self._all: list[tuple[Listener, frozenset[type]]] = []

    def add(self, listener: Listener, kinds: frozenset[type]) -> None:
        """No kinds: all of them."""
        self._all.append((listener, kinds))
        self.clear()

    def __missing__(self, kind: type) -> tuple[Listener, ...]:
        heard = self[kind] = tuple(listener for listener, kinds in self._all if not kinds or kind in kinds)
        return heard


class Registry:
    """`health` and `breaker` say when a worker counts as well."""

    def __init__(self, clock: Clock, health: HealthConfig | None = None, breaker: BreakerConfig | None = None) -> None:
        self._clock = clock
        self._health = health or HealthConfig()
        self._breaker = breaker or BreakerConfig()
        self._care = False
        self._workers: dict[WorkerId, Worker] = {}
        self._heard_by = _Listeners()
        self._untold: deque[FleetEvent] = deque()
        self._telling = False
        self._eligible: dict[str | None, tuple[Worker, ...]] = {}
        self._named = 0

    # -- reading ------------------------------------------------------------------------------------------------

    def all(self) -> tuple[Worker, ...]:
        """Every worker that is not gone, in the order in which they joined."""
        return tuple(self._workers.values())

    def get(self, worker_id: str) -> Worker:
        """Raises UnknownWorker, which lists the ids that exist."""
        worker = self._workers.get(WorkerId(worker_id))
        if worker is None:
            known = ", ".join(self._workers) or "none"
            raise UnknownWorker(f"There is no worker {worker_id!r}. Workers: {known}.", param="worker")
        return worker

    def find(self, worker_id: WorkerId) -> Worker | None:
        """The worker, or None when it is gone."""
        return self._workers.get(worker_id)

    def named(self, name: str) -> tuple[Worker, ...]:
        """The worker of that id, or all ranks of the server of that name. Raises UnknownWorker."""
        ranks = tuple(worker for worker in self._workers.values() if worker.server == name)
        return ranks or (self.get(name),)

    def at(self, base_url: str) -> tuple[Worker, ...]:
        """The workers behind one URL: one, or the ranks of one server; none when all are gone."""
        return tuple(worker for worker in self._workers.values() if worker.base_url == base_url)

    def eligible(self, model: str | None, tried: Collection[WorkerId] = ()) -> tuple[Worker, ...]:
        """Workers that may take a request for `model`, less those `tried`. Never empty.

        Ready ones; if none is, those starting or degraded, which is better than refusing. While a worker warms, asked
        for a pause or is to be tried, see fleet.eligibility. Raises UnknownModel when no worker serves the model,
        NoWorker when none is left. The answer is cached until something changes.
        """
        workers = self._eligible.get(model)
        if workers is None:
            workers = self._find_eligible(model)
            if len(self._eligible) < 1024:  # names come from clients: bound what they can make us keep
                self._eligible[model] = workers
        if self._care:
            workers = self._with_care(workers, model, tried)
        if tried:
            left = tuple(worker for worker in workers if worker.id not in tried)
            workers = left or self._others(model, tried)
        if not workers:
            raise NoWorker("No worker can take this request now. See GET /workers.", retry_after_s=1)
        return workers

    def at_home(self, server: str, tried: Collection[WorkerId]) -> tuple[Worker, ...]:
        """The workers of this server that can be reached, busy or not, less those `tried`; none if there is none."""
        own = [worker for worker in self._workers.values() if worker.server == server and worker.takes_requests]
        return tuple(worker for worker in own if worker.id not in tried and not worker.vitals.failures)

    def models(self) -> frozenset[str]:
        """Names served by at least one worker that takes requests."""
        names = [worker.models or () for worker in self._workers.values() if worker.state is not WorkerState.DRAINING]
        return frozenset(name for served in names for name in served)

    def model_cards(self) -> dict[str, dict[str, Any]]:
        """The workers' own `/v1/models` entries by model name; of equal names the last worker's."""
        return {str(card.get("id")): card for worker in self._workers.values() for card in worker.model_cards}

    # -- changing -----------------------------------------------------------------------------------------------

    def listen(self, listener: Listener, *kinds: type) -> None:
        """Call `listener` with every event from now on; only with those of these `kinds`, where some are named."""
        self._heard_by.add(listener, frozenset(kinds))

    def emit(self, event: FleetEvent) -> None:
        """Tell every listener. An event that a listener emits is told after the one at hand, to all in this order."""
        untold = self._untold
        if self._telling:
            untold.append(event)
            return  # the loop below, further up the stack, takes it
        self._telling = True
        try:
            for listener in self._heard_by[type(event)]:
                listener(event)
            while untold:
                event = untold.popleft()
                for listener in self._heard_by[type(event)]:
                    listener(event)
        finally:
            self._telling = False

    def add(self, base_url: str, name: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> Worker:
        """Add a worker; it is `starting` until a probe answers. `headers` are sent with everything it is sent.

        Raises ConfigError for a URL or name that is not one, WorkerExists when the name or the URL is taken.
        """
        base_url = clean_url(base_url)
        server = clean_name(name) if name is not None else self._new_name()
        for other in self._workers.values():
            if other.server == server or other.base_url == base_url:
                raise WorkerExists(f"Worker {other.id} at {other.base_url} exists already.", param="url")
        worker = self._new(server, base_url)
        worker.extra_headers = tuple(headers)
        self._join(worker)
        return worker

    def set_ranks(self, base_url: str, count: int) -> None:
        """Make the server at this URL `count` workers, one per data-parallel rank; one worker when `count` is 1.

        The workers it was until now leave; requests that run there finish.
        """
        before = self.at(base_url)
        wanted: list[int | None] = [None] if count == 1 else list(range(count))
        if not before or [worker.rank for worker in before] == wanted:
            return
        first, draining = before[0], all(worker.state is WorkerState.DRAINING for worker in before)
        for worker in before:
            self.remove(worker)
        for rank in wanted:
            worker = self._new(first.server, base_url, rank)
            own = () if rank is None else ((RANK_HEADER, str(rank)),)
            worker.extra_headers = (*(each for each in first.extra_headers if each[0] != RANK_HEADER), *own)
            worker.models, worker.model_cards = first.models, first.model_cards
            if draining:
                worker.state, worker.state_reason = WorkerState.DRAINING, "asked to drain"
            self._join(worker)

    def drain(self, worker: Worker) -> None:
        """No new requests; what runs there finishes."""
        self.set_state(worker, WorkerState.DRAINING, "asked to drain")

    def remove(self, worker: Worker) -> None:
        """Forget the worker. Requests that run there keep their connections and finish."""
        self.set_state(worker, WorkerState.GONE, "removed")
        if self._workers.pop(worker.id, None) is not None:
            self._changed(WorkerLeft(worker=worker.id, at_s=self._clock()))

    def take_in(self, server: str, base_url: str, rank: int | None, headers: Sequence[tuple[str, str]]) -> Worker:
        """Add a worker as it is in the process that leads, where it has been checked."""
        worker = self._new(server, base_url, rank)
        worker.extra_headers = tuple(headers)
        self._join(worker)
        return worker

    def set_state(self, worker: Worker, state: WorkerState, why: str, *, followed: bool = False) -> None:
        """Move a worker to `state` and say why. A draining or gone worker never goes back. `followed`: the process
        that leads has said so, and has logged it.
        """
        final = worker.state is WorkerState.GONE or (
            worker.state is WorkerState.DRAINING and state is not WorkerState.GONE
        )
        if final or worker.state is state:
            return
        now_s, before = self._clock(), worker.state
        level = logging.DEBUG if followed else logging.WARNING if state is WorkerState.DEGRADED else logging.INFO
        log.log(level, "worker %s: %s -> %s (%s)", worker.id, before.value, state.value, why)
        if state is WorkerState.READY:
            self._warm(worker, now_s)
        elif before is WorkerState.READY:
            worker.vitals.fell(now_s)
        worker.state, worker.state_reason, worker.state_since_s = state, why, now_s
        worker.history.append((now_s, state, why))
        self._eligible.clear()
        self._take_care(now_s)
        self.emit(WorkerChanged(worker=worker.id, before=before.value, after=state.value, why=why, at_s=now_s))

    def judge(self, worker: Worker) -> None:
        """Put the worker into the state that its vitals speak for. Call it after telling them something."""
        state, why = worker.vitals.verdict(worker.state, self._clock())
        if state is not worker.state:
            self.set_state(worker, state, why)
        elif why and worker.takes_requests:
            worker.state_reason = why

    def hold(self, worker: Worker, seconds: float) -> None:
        """The worker asked for a pause: others get what comes in that time, if there are others."""
        worker.held_until_s = self._clock() + seconds
        self._care = True

    def count_elsewhere(self, worker: Worker, count: int, *, told: bool) -> None:
        """Other processes of this router have so many requests there. `told`: say it when the worker is drained."""
        before = worker.in_flight
        worker.in_flight += count - worker.elsewhere
        worker.elsewhere = count
        if told and before and worker.state is WorkerState.DRAINING and worker.in_flight == 0:
            log.info("worker %s is drained", worker.id)

    def needs_care(self) -> None:
        """Something was set that `eligible` has to look at."""
        self._care = True

    def trial_s(self, worker: Worker) -> float | None:
        """Seconds that a request to this worker has until its first byte, when it is one on trial; else None."""
        breaker, now_s = worker.vitals.breaker, self._clock()
        return breaker.trial_begins(now_s) if breaker.trial_due(now_s) else None

    def call_off(self, worker: Worker, error: RouterError | None = None) -> None:
        """End the wait of every request there that has no first byte, so that it can go elsewhere."""
        why = WorkerTimeout(f"Worker {worker.id} hangs: {worker.vitals.why}.")
        for waiting in tuple(worker.unanswered):
            waiting(error or why)

    def set_models(self, worker: Worker, cards: tuple[dict[str, object], ...]) -> None:
        """What `/v1/models` of the worker said."""
        names = frozenset(str(card["id"]) for card in cards if "id" in card)
        if names != worker.models:
            self._eligible.clear()
        worker.models, worker.model_cards = names or None, cards

    def set_facts(self, worker: Worker, facts: ServerFacts) -> None:
        """What `/server_info` of the worker said. A changed identity means a new process, whose cache is empty."""
        before, worker.facts = worker.facts, facts
        if facts.cache_report is not None:
            worker.reports_cached = facts.cache_report
        if before is not None and before.identity != facts.identity:
            self.restarted(worker, "its /server_info is another one")
        worker.facts_stale = False

    def report_load(self, worker: Worker, load: LoadReport) -> None:
        """A load report came."""
        worker.load = load
        self.emit(LoadReported(worker=worker.id, load=load, at_s=load.at_s))

    def restarted(self, worker: Worker, why: str) -> None:
        """The worker is a new process: what was known of its cache is gone, and its facts are read again."""
        worker.facts_stale = True
        log.warning("worker %s was restarted: %s", worker.id, why)
        self.cache_cleared(worker)

    def emptied(self, worker_id: WorkerId) -> None:
        """The worker's cache seems to be empty: nothing that was expected there was found. Unknown ids are ignored."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            log.warning("worker %s finds nothing in its cache of what it was sent before: forgotten", worker_id)
            self.cache_cleared(worker)

    def cache_cleared(self, worker: Worker) -> None:
        """The worker's cache is known to be empty: it was flushed or restarted."""
        self.emit(CacheCleared(worker=worker.id, at_s=self._clock()))

    def lease(self, worker: Worker, call_off: CallOff | None = None) -> Lease:
        """Count one request on the worker for the time of a `with` block, in which `call_off` may end its wait for the
        first byte."""
        trial_s = None if worker.vitals.breaker.state is BreakerState.CLOSED else self.trial_s(worker)
        return Lease(worker, call_off, trial_s)

    # -- inside -------------------------------------------------------------------------------------------------

    def _find_eligible(self, model: str | None) -> tuple[Worker, ...]:
        open_to = [worker for worker in self._workers.values() if worker.takes_requests]
        serving = [worker for worker in open_to if worker.serves(model)]
        if open_to and not serving:
            names = ", ".join(sorted(self.models()))
            raise UnknownModel(f"The model {model!r} is not served here. Models: {names}.", param="model")
        ready = [worker for worker in serving if worker.state is WorkerState.READY]
        return tuple(ready or serving)

    def _with_care(
        self, ready: tuple[Worker, ...], model: str | None, tried: Collection[WorkerId]
    ) -> tuple[Worker, ...]:
        """`ready` as fleet.eligibility has it."""
        now_s = self._clock()
        if not self._take_care(now_s):
            return ready
        if not tried:
            trial = on_trial([worker for worker in self._workers.values() if worker.serves(model)], now_s)
            if trial is not None:
                return (trial,)
        return chosen(ready, now_s, self._health.warm_s)

    def _take_care(self, now_s: float) -> bool:
        self._care = any(needs_care(worker, now_s) for worker in self._workers.values())
        return self._care

    def _others(self, model: str | None, tried: Collection[WorkerId]) -> tuple[Worker, ...]:
        """When all ready workers have been tried: any other that only its breaker or its youth speaks against."""
        serving = [worker for worker in self._workers.values() if worker.takes_requests and worker.serves(model)]
        return tuple(worker for worker in serving if worker.id not in tried and not worker.vitals.failures)

    def _warm(self, worker: Worker, now_s: float) -> None:
        """A cold worker that joins a fleet which has run for a while starts with a small share."""
        settled_s = now_s - self._health.warm_s
        cold = worker.state is WorkerState.STARTING or worker.was_unreachable
        others = [other for other in self._workers.values() if other.state is WorkerState.READY and other is not worker]
        if cold and self._health.warm_s > 0 and others and all(other.state_since_s <= settled_s for other in others):
            worker.warm_from_s = now_s

    def _new(self, server: str, base_url: str, rank: int | None = None) -> Worker:
        return Worker(
            server, base_url, now_s=self._clock(), rank=rank, health=self._health, breaker=self._breaker
        )

    def _new_name(self) -> str:
        taken = {worker.server for worker in self._workers.values()}
        while True:
            self._named += 1
            if f"w{self._named}" not in taken:
                return f"w{self._named}"

    def _join(self, worker: Worker) -> None:
        self._workers[worker.id] = worker
        log.info("worker %s added at %s", worker.id, worker.base_url)
        self._changed(WorkerJoined(worker=worker.id, at_s=self._clock()))

    def _changed(self, event: FleetEvent) -> None:
        self._eligible.clear()
        self.emit(event)


def clean_name(name: str) -> str:
    """A worker's name as it is. Raises ConfigError for one that could be taken for something else."""
    if not name or len(name) > 64 or not name.isprintable() or any(c in name for c in "#/ ,"):
        raise ConfigError(
            f"{name!r} is not a worker name: 1 to 64 printable characters without '#', '/', ',' or spaces.", param="id"
        )
    return name


def clean_url(url: str) -> str:
    """A worker's base URL without its trailing slash. Raises ConfigError, which says what a URL looks like."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username or any(c.isspace() for c in url):
        raise ConfigError(f"{url!r} is not a worker URL. Write it like http://127.0.0.1:30000.", param="worker")
    return url.rstrip("/")
