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
from router.errors import ConfigError, NoWorker, UnknownModel, UnknownWorker, WorkerExists
from router.fleet.lease import Lease
from router.fleet.server_info import ServerFacts
from router.fleet.worker import Worker, WorkerState
from router.types import CacheCleared, FleetEvent, LoadReport, LoadReported, WorkerId, WorkerJoined, WorkerLeft

log = logging.getLogger(__name__)

RANK_HEADER = "x-data-parallel-rank"
"""How SGLang is told which data-parallel rank shall serve a request (OpenAI routes, since 0.5.10)."""

Listener = Callable[[FleetEvent], None]


class Registry:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._workers: dict[WorkerId, Worker] = {}
        self._listeners: list[Listener] = []
        self._events: deque[FleetEvent] = deque()
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

    def named(self, name: str) -> tuple[Worker, ...]:
        """The worker of that id, or all ranks of the server of that name. Raises UnknownWorker."""
        ranks = tuple(worker for worker in self._workers.values() if worker.server == name)
        return ranks or (self.get(name),)

    def at(self, base_url: str) -> tuple[Worker, ...]:
        """The workers behind one URL: one, or the ranks of one server; none when all are gone."""
        return tuple(worker for worker in self._workers.values() if worker.base_url == base_url)

    def eligible(self, model: str | None, tried: Collection[WorkerId] = ()) -> tuple[Worker, ...]:
        """Workers that may take a request for `model`, less those `tried`. Never empty.

        Ready ones; if none is, those starting or degraded, which is better than refusing. Raises UnknownModel when
        no worker serves the model, NoWorker when none is left. The answer is cached until something changes.
        """
        workers = self._eligible.get(model)
        if workers is None:
            workers = self._find_eligible(model)
            if len(self._eligible) < 1024:  # names come from clients: bound what they can make us keep
                self._eligible[model] = workers
        if tried:
            workers = tuple(worker for worker in workers if worker.id not in tried)
        if not workers:
            raise NoWorker("No worker can take this request now. See GET /workers.", retry_after_s=1)
        return workers

    def models(self) -> frozenset[str]:
        """Names served by at least one worker that takes requests."""
        names = [worker.models or () for worker in self._workers.values() if worker.state is not WorkerState.DRAINING]
        return frozenset(name for served in names for name in served)

    def model_cards(self) -> dict[str, dict[str, Any]]:
        """The workers' own `/v1/models` entries by model name; of equal names the last worker's."""
        return {str(card.get("id")): card for worker in self._workers.values() for card in worker.model_cards}

    # -- changing -----------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every event from now on."""
        self._listeners.append(listener)

    def emit(self, event: FleetEvent) -> None:
        """Tell every listener. An event that a listener emits is told after the one at hand, to all in this order."""
        self._events.append(event)
        if self._telling:
            return  # the loop below, further up the stack, takes it
        self._telling = True
        try:
            while self._events:
                told = self._events.popleft()
                for listener in self._listeners:
                    listener(told)
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
        worker = Worker(server, base_url, now_s=self._clock())
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
            worker = Worker(first.server, base_url, now_s=self._clock(), rank=rank)
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

    def set_state(self, worker: Worker, state: WorkerState, why: str) -> None:
        """Move a worker to `state` and say why. A draining or gone worker never goes back."""
        final = worker.state is WorkerState.GONE or (
            worker.state is WorkerState.DRAINING and state is not WorkerState.GONE
        )
        if final or worker.state is state:
            return
        level = logging.WARNING if state is WorkerState.DEGRADED else logging.INFO
        log.log(level, "worker %s: %s -> %s (%s)", worker.id, worker.state.value, state.value, why)
        worker.state, worker.state_reason, worker.state_since_s = state, why, self._clock()
        self._eligible.clear()

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

    def lease(self, worker: Worker) -> Lease:
        """Count one request on the worker for the time of a `with` block."""
        return Lease(worker, self._lease_ended)

    # -- inside -------------------------------------------------------------------------------------------------

    def _lease_ended(self, worker: Worker) -> None:
        if worker.state is WorkerState.DRAINING and worker.in_flight == 0:
            log.info("worker %s is drained", worker.id)

    def _find_eligible(self, model: str | None) -> tuple[Worker, ...]:
        open_to = [worker for worker in self._workers.values() if worker.takes_requests]
        serving = [worker for worker in open_to if worker.serves(model)]
        if open_to and not serving:
            names = ", ".join(sorted(self.models()))
            raise UnknownModel(f"The model {model!r} is not served here. Models: {names}.", param="model")
        ready = [worker for worker in serving if worker.state is WorkerState.READY]
        return tuple(ready or serving)

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
