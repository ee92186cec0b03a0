"""Replay: traffic through a policy to simulated engines on a virtual clock. Deterministic by seed; no sockets.

The policy is told what a router tells it, in the order of router.request.dispatch: WorkerJoined first; then for each
request `select`, Dispatched, FirstToken, and Finished with the worker's own count of cached tokens; LoadReported at
every poll. A decision takes no virtual time. Called by the commands, by sweeps, and by whoever tunes a policy:

    traffic = traffic_of(read_trace(path, limit=2500))
    run = replay(traffic, "round_robin", ReplayConfig(workers=8, capacity_tokens=699_103, rate=1.2, seed=1))
    run.summary.ttft_s.mean
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from loadtests.measures import ErrorKind, Objective, RequestResult, Summary, summarize
from loadtests.replay_policy import named_policy
from loadtests.replay_source import ReplayRequest, ReplayTraffic
from loadtests.replay_worker import ReplayWorker
from router.policies import Policy
from router.types import (
    Decision,
    Dispatched,
    Finished,
    FirstToken,
    FleetEvent,
    LoadReported,
    Outcome,
    RequestId,
    RoutingRequest,
    WorkerId,
    WorkerJoined,
)
from workers.simulated.cost_model import H200_QWEN3_8B, CostModel
from workers.simulated.engine import TokenOutput
from workers.simulated.engine_config import EngineConfig
from workers.simulated.request import EngineRequest

ENDPOINT = "/v1/chat/completions"
_STEP_ENDS, _POLL, _READY, _ARRIVAL = range(4)  # of what happens at the same moment, this is the order


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """One cell. Raises ValueError, naming the field, for values that cannot work.

    capacity_tokens: KV cache of each worker. rate: arrivals come this many times as often (pauses within a session that
    waits for its turns stay). load_poll_s: how often the policy hears of every worker's load, in seconds. spread:
    arrivals that share a timestamp are spread over the tick of the trace's clock, as the seed has it. jitter_s: each
    session starts up to so many seconds of the trace later, all its turns alike, so that seeds differ on every trace.
    objective_s: the TTFT that counts as good.
    overlap: engines plan a step while the one before it runs, as SGLang's do. exact: policies are told what each
    worker's cache holds, as a router with KV events tells them.
    """

    workers: int = 8
    capacity_tokens: int = 699_103
    rate: float = 1.0
    seed: int = 0
    load_poll_s: float = 1.0
    spread: bool = True
    jitter_s: float = 0.0
    objective_s: float = 1.0
    max_running_requests: int = 256
    chunked_prefill_tokens: int = 8192
    overlap: bool = True
    exact: bool = False
    cost_model: CostModel = H200_QWEN3_8B

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("capacity_tokens", self.capacity_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, number in (("rate", self.rate), ("load_poll_s", self.load_poll_s)):
            if not number > 0:
                raise ValueError(f"{name} must be above 0, got {number}")
        if not self.jitter_s >= 0:
            raise ValueError(f"jitter_s must be at least 0, got {self.jitter_s}")

    def engine(self, page_tokens: int) -> EngineConfig:
        """The configuration of each engine. Raises ValueError."""
        return EngineConfig(
            kv_capacity_tokens=self.capacity_tokens,
            page_size=page_tokens,
            max_running_requests=self.max_running_requests,
            chunked_prefill_tokens=self.chunked_prefill_tokens,
            overlap=self.overlap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRun:
    """One cell's results, in order of completion. `busy_s` is how long each engine computed."""

    policy: str
    config: ReplayConfig
    results: Sequence[RequestResult]
    summary: Summary
    busy_s: Sequence[float]


def replay(
    traffic: ReplayTraffic,
    policy: str | Policy,
    config: ReplayConfig,
    *,
    on_result: Callable[[RequestResult], None] | None = None,
    on_event: Callable[[FleetEvent], None] | None = None,
) -> ReplayRun:
    """One cell. `policy` is a name, with parameters if wanted ("prefix_match:load_factor=2"), or an object that has
    seen nothing yet. `on_event` hears what the policy hears. Raises PolicyError for a policy that is not one,
    ValueError for engines that cannot be built.
    """
    name = policy if isinstance(policy, str) else type(policy).__name__
    chosen = named_policy(policy, Random(config.seed)) if isinstance(policy, str) else policy
    clock = _Replay(traffic, chosen, config, name, on_result, on_event)
    clock.run()
    return ReplayRun(
        policy=name,
        config=config,
        results=clock.results,
        summary=summarize(
            clock.results,
            workers=[worker.id for worker in clock.workers],
            objective=Objective(ttft_s=config.objective_s),
        ),
        busy_s=[worker.busy_s for worker in clock.workers],
    )


def arrivals(requests: Sequence[ReplayRequest], config: ReplayConfig) -> list[float]:
    """When each request comes, in seconds from the trace's first, after `spread`, `jitter_s` and `rate`.

    A trace whose clock ticks (Mooncake's conversation trace, every 3 s) gives many requests the same timestamp. Each
    such group is spread evenly at random over the time to the next timestamp, but at most over one tick, the median
    distance of timestamps.
    """
    start_s = requests[0].arrival_s
    times = [request.arrival_s - start_s for request in requests]
    if config.spread:
        times = _spread(times, random.Random(f"arrivals:{config.seed}"))
    if config.jitter_s:
        times = _jittered(requests, times, config.jitter_s, random.Random(f"jitter:{config.seed}"))
    return [time / config.rate for time in times]


def _jittered(
    requests: Sequence[ReplayRequest], times: Sequence[float], jitter_s: float, rng: Random
) -> list[float]:
    later: dict[str, float] = {}
    moved = []
    for index, (request, time) in enumerate(zip(requests, times, strict=True)):
        session = request.session_id or f"request-{index}"
        if session not in later:
            later[session] = rng.random() * jitter_s
        moved.append(time + later[session])
    return moved


def _spread(times: Sequence[float], rng: Random) -> list[float]:
    distinct = sorted(set(times))
    gaps = [after - before for before, after in pairwise(distinct)]
    if not gaps or len(distinct) == len(times):
        return list(times)
    tick_s = sorted(gaps)[len(gaps) // 2]
    room = dict(zip(distinct, [min(gap, tick_s) for gap in gaps] + [tick_s], strict=True))
    counts: dict[float, int] = {}
    for time in times:
        counts[time] = counts.get(time, 0) + 1
    offsets = {
        time: iter(sorted(rng.random() * room[time] for _ in range(count)) if count > 1 else [0.0])
        for time, count in counts.items()
    }
    return [time + next(offsets[time]) for time in times]


@dataclass(slots=True)
class _Sent:
    """A request between its dispatch and its end."""

    index: int
    request: RoutingRequest
    decision: Decision
    worker: ReplayWorker
    at_s: float
    ttft_s: float | None = None


class _Replay:
    """The virtual clock: a heap of (time, kind, tie-break, subject)."""

    def __init__(
        self,
        traffic: ReplayTraffic,
        policy: Policy,
        config: ReplayConfig,
        name: str,
        on_result: Callable[[RequestResult], None] | None,
        on_event: Callable[[FleetEvent], None] | None,
    ) -> None:
        self._requests = traffic.requests
        self._times = arrivals(traffic.requests, config)
        self._policy = policy
        self._config = config
        self._name = name
        self._on_result = on_result
        self._on_event = on_event
        engine = config.engine(traffic.page_tokens)
        self.workers = [ReplayWorker(WorkerId(f"w{i + 1}"), engine, config.cost_model) for i in range(config.workers)]
        self._by_id = {worker.id: index for index, worker in enumerate(self.workers)}
        self._sent: dict[str, _Sent] = {}
        self._turns: dict[str, list[int]] = {}  # of sessions that wait: indices not yet started, next one last
        self._heap: list[tuple[float, int, int, int]] = []
        self._pushed = 0
        self._unfinished = len(self._requests)
        self.results: list[RequestResult] = []

    def run(self) -> None:
        for worker in self.workers:
            self._tell(WorkerJoined(worker=worker.id, at_s=0.0))
        self._queue_arrivals()
        self._push(0.0, _POLL, 0)
        while self._unfinished:
            now_s, kind, _, subject = heapq.heappop(self._heap)
            if kind == _STEP_ENDS:
                worker = self.workers[subject]
                if worker.due_s == now_s:  # else it was put off, and comes again
                    self._step_ends(worker, subject, now_s)
            elif kind == _READY:
                self._submit(self._sent[str(subject)], now_s)
            elif kind == _ARRIVAL:
                self._arrive(subject, now_s)
            else:
                self._poll(now_s)

    def _queue_arrivals(self) -> None:
        """All arrivals, but of a session that waits for its turns only the first."""
        for index, (request, at_s) in enumerate(zip(self._requests, self._times, strict=True)):
            if request.wait_for_turn and request.session_id is not None:
                turns = self._turns.get(request.session_id)
                if turns is not None:
                    turns.append(index)
                    continue
                self._turns[request.session_id] = []
            self._push(at_s, _ARRIVAL, index)
        for turns in self._turns.values():
            turns.sort(key=lambda index: -self._requests[index].turn)

    def _arrive(self, index: int, now_s: float) -> None:
        """The way of router.request.dispatch: select, count, tell, send."""
        one = self._requests[index]
        request = RoutingRequest(
            request_id=RequestId(str(index)),
            endpoint=ENDPOINT,
            key=one.key,
            at_s=now_s,
            session=one.session_id,
            stream=True,
            max_output_tokens=one.max_output_tokens,
            known_match_tokens=self._known(one) if self._config.exact else None,
        )
        decision = self._policy.select(request, self.workers)
        worker = self.workers[self._by_id[decision.worker]]
        worker.in_flight += 1
        self._tell(Dispatched(request=request, decision=decision, at_s=now_s))
        sent = _Sent(index=index, request=request, decision=decision, worker=worker, at_s=now_s)
        self._sent[request.request_id] = sent
        ready_s = worker.front_end.ready_s(now_s, one.prompt_tokens, text=True)
        if ready_s > now_s:
            self._push(ready_s, _READY, index)
        else:
            self._submit(sent, now_s)

    def _known(self, request: ReplayRequest) -> dict[WorkerId, int]:
        return {worker.id: worker.cached_tokens(request.pages, request.prompt_tokens) for worker in self.workers}

    def _submit(self, sent: _Sent, now_s: float) -> None:
        """The worker's front end has read the request: the engine gets it."""
        one = self._requests[sent.index]
        request = EngineRequest(
            rid=sent.request.request_id,
            prompt_tokens=one.prompt_tokens,
            output_tokens=one.output_tokens,
            pages=one.pages,
            max_new_tokens=one.max_output_tokens,
        )
        try:
            sent.worker.submit(request, now_s)
        except ValueError as error:  # longer than the KV cache: SGLang answers 400
            del self._sent[request.rid]
            self._refused(sent, str(error), now_s)
            return
        self._schedule(sent.worker, self._by_id[sent.worker.id])

    def _step_ends(self, worker: ReplayWorker, subject: int, now_s: float) -> None:
        outputs = worker.advance()
        self._schedule(worker, subject)
        for output in outputs:
            if output.first:
                sent = self._sent[output.rid]
                sent.ttft_s = now_s - sent.at_s
                self._tell(
                    FirstToken(
                        request_id=sent.request.request_id, worker=worker.id, ttft_s=sent.ttft_s, at_s=now_s
                    )
                )
            if output.finished:
                self._finish(self._sent.pop(output.rid), output, now_s)

    def _finish(self, sent: _Sent, output: TokenOutput, now_s: float) -> None:
        one = self._requests[sent.index]
        outcome = self._outcome(sent, now_s, status=200, cached_tokens=output.cached_tokens)
        self._ended(sent, outcome, now_s)
        result = RequestResult(
            session_id=one.session_id or f"request-{sent.index}",
            turn=one.turn,
            workload=one.workload,
            start_s=sent.at_s,
            ttft_s=sent.ttft_s,
            e2e_s=outcome.e2e_s,
            prompt_tokens=one.prompt_tokens,
            cached_tokens=output.cached_tokens,
            completion_tokens=one.output_tokens,
            worker=sent.worker.id,
        )
        self._record(sent.index, result, now_s)

    def _refused(self, sent: _Sent, why: str, now_s: float) -> None:
        one = self._requests[sent.index]
        self._ended(sent, self._outcome(sent, now_s, status=400, cached_tokens=None), now_s)
        result = RequestResult(
            session_id=one.session_id or f"request-{sent.index}",
            turn=one.turn,
            workload=one.workload,
            start_s=sent.at_s,
            e2e_s=0.0,
            worker=sent.worker.id,
            error=ErrorKind.HTTP_STATUS,
            error_detail=why,
        )
        self._record(sent.index, result, now_s)

    def _ended(self, sent: _Sent, outcome: Outcome, now_s: float) -> None:
        """The lease ends, then the Outcome is told, as in router.request.record."""
        worker = sent.worker
        worker.in_flight -= 1
        self._tell(Finished(request_id=outcome.request_id, worker=worker.id, outcome=outcome, at_s=now_s))

    def _outcome(self, sent: _Sent, now_s: float, *, status: int, cached_tokens: int | None) -> Outcome:
        one = self._requests[sent.index]
        ok = status < 400
        e2e_s, ttft_s, tokens = now_s - sent.at_s, sent.ttft_s, one.output_tokens
        return Outcome(
            request_id=sent.request.request_id,
            endpoint=ENDPOINT,
            at_s=sent.at_s,
            status=status,
            e2e_s=e2e_s,
            policy=self._name,
            session=one.session_id,
            max_output_tokens=one.max_output_tokens,
            decision=sent.decision,
            attempts=1,
            stream=True,
            ttft_s=ttft_s,
            itl_mean_s=(e2e_s - ttft_s) / (tokens - 1) if ok and ttft_s is not None and tokens > 1 else None,
            events=tokens if ok else 0,
            key=one.key,
            prompt_tokens=one.prompt_tokens if ok else None,
            cached_tokens=cached_tokens,
            completion_tokens=tokens if ok else None,
        )

    def _record(self, index: int, result: RequestResult, now_s: float) -> None:
        self._unfinished -= 1
        self.results.append(result)
        if self._on_result is not None:
            self._on_result(result)
        turns = self._turns.get(result.session_id)
        if turns:
            following = turns.pop()
            self._push(max(self._times[following], now_s + self._requests[following].gap_s), _ARRIVAL, following)

    def _poll(self, now_s: float) -> None:
        for subject, worker in enumerate(self.workers):
            load = worker.report(now_s)
            self._schedule(worker, subject)
            self._tell(LoadReported(worker=worker.id, load=load, at_s=now_s))
        self._push(now_s + self._config.load_poll_s, _POLL, 0)

    def _schedule(self, worker: ReplayWorker, subject: int) -> None:
        if worker.due_s is not None:
            self._push(worker.due_s, _STEP_ENDS, subject)

    def _push(self, at_s: float, kind: int, subject: int) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at_s, kind, self._pushed, subject))

    def _tell(self, event: FleetEvent) -> None:
        self._policy.observe(event)
        if self._on_event is not None:
            self._on_event(event)


def busy_share(run: ReplayRun) -> float:
    """Share of the run during which the mean engine computed."""
    duration_s = run.summary.duration_s
    return sum(run.busy_s) / (len(run.busy_s) * duration_s) if duration_s else 0.0
