"""The virtual clock of replay: arrivals, decisions, engines and polls in the order in which they happen.

The policy is told what a router tells it, in the order of router.request.dispatch and record: WorkerJoined first; then
for each request `select`, Dispatched, FirstToken, and Finished with the worker's own count of cached tokens;
LoadReported at every poll. A decision takes no virtual time. What the policy would rather decide later is held as
router.admission.hold does. Called by replay.py. Not here: one engine (replay_worker.py), when requests come
(replay_arrivals.py), figures (measures.py).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.measures import ErrorKind, RequestResult
from loadtests.replay_arrivals import arrivals
from loadtests.replay_config import ReplayConfig
from loadtests.replay_source import ReplayRequest, ReplayTraffic
from loadtests.replay_worker import ReplayWorker
from router.admission.held_queue import LOOK_S, Held, HeldQueue, HoldConfig
from router.policies import Policy
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, Outcome, RoutingRequest
from router.types import LoadReported, RequestId, WorkerId, WorkerJoined
from workers.simulated.engine import TokenOutput
from workers.simulated.request import EngineRequest

ENDPOINT = "/v1/chat/completions"
_STEP_ENDS, _POLL, _READY, _ARRIVAL, _LOOK = range(5)  # of what happens at the same moment, this is the order


@dataclass(slots=True)
class _Sent:
    """A request between its dispatch and its end."""

    index: int
    request: RoutingRequest
    decision: Decision
    worker: ReplayWorker
    arrived_s: float
    at_s: float
    ttft_s: float | None = None


class ReplayClock:
    """One run: a heap of (time, kind, tie-break, subject). `results` is in order of completion."""

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
        self._held = HeldQueue(HoldConfig())
        self._looks = False
        self._turns: dict[str, list[int]] = {}  # of sessions that wait: indices not yet started, next one last
        self._heap: list[tuple[float, int, int, int]] = []
        self._pushed = 0
        self._unfinished = len(self._requests)
        self.results: list[RequestResult] = []

    def run(self) -> None:
        """Until every request has ended."""
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
            elif kind == _LOOK:
                self._look(now_s)
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
        held = Held(now_s, tag=index)
        self._decide(held, now_s)
        if held.worker is not None and not self._looks:
            self._looks = True
            self._push(now_s + LOOK_S, _LOOK, 0)

    def _look(self, now_s: float) -> None:
        """Now and then while something is held: what frees a worker is not always told."""
        worker = self._held.next_worker()
        self._looks = worker is not None
        if worker is not None:
            self._next_turns(worker, now_s)
            self._push(now_s + LOOK_S, _LOOK, 0)

    def _next_turns(self, worker: WorkerId, now_s: float) -> None:
        for held in self._held.turns(worker):
            self._decide(held, now_s)

    def _decide(self, held: Held, now_s: float) -> None:
        """The way of router.request.dispatch: select, hold or count, tell, send."""
        index = held.tag
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
        if self._held.waits(decision, held, now_s):
            self._held.put(held, decision)
            return
        self._held.take(held)
        worker = self.workers[self._by_id[decision.worker]]
        worker.in_flight += 1
        self._tell(Dispatched(request=request, decision=decision, at_s=now_s))
        sent = _Sent(
            index=index, request=request, decision=decision, worker=worker, arrived_s=held.arrived_s, at_s=now_s
        )
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
                sent.ttft_s = now_s - sent.arrived_s
                waited_s = now_s - sent.at_s
                self._tell(
                    FirstToken(request_id=sent.request.request_id, worker=worker.id, ttft_s=waited_s, at_s=now_s)
                )
            if output.finished:
                self._finish(self._sent.pop(output.rid), output, now_s)
        if self._held.size and any(output.first or output.finished for output in outputs):
            self._next_turns(worker.id, now_s)

    def _finish(self, sent: _Sent, output: TokenOutput, now_s: float) -> None:
        one = self._requests[sent.index]
        outcome = self._outcome(sent, now_s, status=200, cached_tokens=output.cached_tokens)
        self._ended(sent, outcome, now_s)
        result = RequestResult(
            session_id=one.session_id or f"request-{sent.index}",
            turn=one.turn,
            workload=one.workload,
            start_s=sent.arrived_s,
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
            start_s=sent.arrived_s,
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
        e2e_s, ttft_s, tokens = now_s - sent.arrived_s, sent.ttft_s, one.output_tokens
        return Outcome(
            request_id=sent.request.request_id,
            endpoint=ENDPOINT,
            at_s=sent.arrived_s,
            status=status,
            e2e_s=e2e_s,
            policy=self._name,
            session=one.session_id,
            max_output_tokens=one.max_output_tokens,
            decision=sent.decision,
            held_s=sent.at_s - sent.arrived_s,
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
