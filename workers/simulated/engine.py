"""One SGLang scheduler as a pure step: continuous batching over a KV cache, on whatever clock the caller keeps.

`step` does one prefill or decode iteration at once and says how long the modelled GPU takes for it. Requests submitted
meanwhile join the next, or with `overlap` the one after it. Prefill comes before decode, as in SGLang without mixed
chunks. No wall time, no text, no I/O. Used by rank.py (wall time), loadtests.replay and calibration (virtual time).
Longer than others: the order of what one step does to queue, memory and batch is its content, and is kept in one place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from workers.simulated.admission import Admission, Planned, Verdict
from workers.simulated.cost_model import H200_QWEN3_8B, CostModel, DecodeLoad
from workers.simulated.decode_batch import DecodeBatch
from workers.simulated.engine_config import EngineConfig
from workers.simulated.engine_load import EngineLoad, LoadMeter
from workers.simulated.kv_memory import KvMemory
from workers.simulated.radix_cache import CacheListener
from workers.simulated.request import EngineRequest
from workers.simulated.request_state import RequestState
from workers.simulated.waiting_queue import WaitingQueue


class StepKind(Enum):
    IDLE = "idle"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOutput:
    """What a step brought one request. `cached_tokens`: prompt tokens found in the cache when it first ran."""

    rid: str
    new_tokens: int
    cached_tokens: int
    first: bool
    finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step. Its outputs count from the step's end, `duration_s` after the `now_s` it was given.

    `iterations` is above 1 for folded decode steps. `prefill_tokens` counts prompt tokens computed. `started` names
    requests that left the queue for the first time, `retracted` those that lost their KV to others and wait again;
    what they produced stays.
    """

    kind: StepKind
    duration_s: float
    outputs: Sequence[TokenOutput] = ()
    iterations: int = 1
    prefill_tokens: int = 0
    started: Sequence[str] = ()
    retracted: Sequence[str] = ()


IDLE = StepResult(kind=StepKind.IDLE, duration_s=0.0, iterations=0)


class Engine:
    """One simulated engine. Equal calls give equal results; a call never blocks."""

    def __init__(
        self,
        config: EngineConfig,
        cost_model: CostModel = H200_QWEN3_8B,
        *,
        listener: CacheListener | None = None,
    ) -> None:
        self.config = config
        self.cost_model = cost_model
        self.memory = KvMemory(config.kv_capacity_tokens, config.page_size, listener)
        self._states: dict[str, RequestState] = {}
        self._waiting = WaitingQueue(lpm=config.schedule_policy == "lpm")
        self._arrived: deque[tuple[float, RequestState]] = deque()  # with `overlap`: not seen yet, by time of arrival
        self._chunked: RequestState | None = None  # admitted in part, goes on in the next prefill step
        self._batch = DecodeBatch(config.page_size)
        self._memory_full = False  # nothing is admitted before something is freed (SGLang: batch_is_full)
        self._ratio = config.new_token_ratio
        self._meter = LoadMeter()
        self._results: list[tuple[RequestState, bool]] = []  # of the last step: prompt read, or (True) all done
        self._last_start_s = 0.0  # when the last iteration began, and when the GPU is free after it
        self._free_s = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._states

    def submit(self, request: EngineRequest, now_s: float) -> None:
        """Queues a request; times never go back. Raises ValueError for one that can never run or has a rid in use."""
        self._check(request)
        if not self._states:
            self._ratio = self.config.new_token_ratio
        state = RequestState(request)
        self._states[request.rid] = state
        if self.config.overlap:
            self._arrived.append((now_s, state))
        else:
            self._waiting.append(state)

    def abort(self, rid: str) -> bool:
        """Ends a request now, wherever it is; what it has computed stays in the cache. False when it is not here."""
        state = self._states.pop(rid, None)
        if state is None:
            return False
        if rid in self._batch:
            self._batch.remove(state)
        elif state is self._chunked:
            self._chunked = None
        else:
            self._see_arrivals(float("inf"))
            self._waiting.remove(state)
            if self.idle:
                self._process_results()
            return True
        self._results = [result for result in self._results if result[0] is not state]
        self.memory.release(state, keep=True)
        self._memory_full = False
        if self.idle:
            self._process_results()  # of requests that ended in the last step: no step comes that would
        return True

    def flush_cache(self) -> bool:
        """Empties the cache. Refused, with False, while anything runs or waits, as in SGLang."""
        if not self.idle:
            return False
        self.memory.cache.clear()
        return True

    def load(self) -> EngineLoad:
        """What GET /v1/loads reports. Matches every waiting prompt against the cache, so not for every step."""
        states = [*self._waiting, *(state for _, state in self._arrived)]
        waiting = [self.memory.matched_tokens(state) for state in states]
        waiting_tokens = sum(state.fill_tokens for state in states)
        chunk_left = 0 if self._chunked is None else self._chunked.fill_tokens - self._chunked.kv_tokens
        return self._meter.load(
            config=self.config,
            memory=self.memory,
            running=len(self._batch) + (self._chunked is not None),
            waiting=len(waiting),
            waiting_tokens=waiting_tokens,
            waiting_uncached_tokens=waiting_tokens - sum(waiting) + chunk_left,
        )

    def step(self, now_s: float, horizon_s: float | None = None) -> StepResult:
        """One prefill or decode iteration that starts at `now_s`; IDLE when there is nothing to do.

        With `horizon_s`, as many decode iterations as come before the first finish, and before the first iteration that
        ends at `horizon_s` or later, are done in one step; its outputs then list only the requests that finished.
        """
        if self._arrived:
            if self._runs:
                self._see_arrivals(self._last_start_s + self.cost_model.plan_s)
            elif now_s < self._free_s:
                return StepResult(kind=StepKind.DECODE, duration_s=self._free_s - now_s)
            else:
                self._see_arrivals(float("inf"))
        retracted: list[str] = []
        while True:
            planned = self._plan_prefill()
            processed = self._process_results()
            if planned:
                return self._prefill(planned, now_s, retracted)
            retracted += self._make_room()
            if len(self._batch):
                return self._decode(now_s, horizon_s, retracted)
            if not retracted and not processed:
                return IDLE
            # Every decoding request had to go: the chunked request, or the head of the queue, can now run.

    def quiet_s(self) -> float | None:
        """Seconds that the next `step` would take without a horizon, if it only decodes: nothing comes out before, and
        nothing that is submitted meanwhile needs it to be done yet. None when idle or when more may come next: a
        prefill or a retraction. Changes nothing.
        """
        batch = self._batch
        if self._chunked is not None or self._may_admit or self._results or not len(batch):
            return None
        if batch.pages_needed(1) > self.memory.available_pages:
            return None
        load = self._decode_load()
        return self.cost_model.decode_s(load, self._foldable(load, float("inf")))

    @property
    def _runs(self) -> bool:
        """Whether the next step was planned, in part at least, before anything that has just arrived."""
        return bool(len(self._batch) or len(self._waiting) or self._chunked is not None)

    @property
    def _may_admit(self) -> bool:
        """Whether a request might leave the queue before anything else happens."""
        return bool(len(self._waiting) or self._arrived) and not self._memory_full

    def _process_results(self) -> bool:
        """Does what a step's end brings: prompts enter the tree, ended requests free their KV. With `overlap`, SGLang
        does this after the next step is planned, which thus finds neither. False when there was nothing.
        """
        results, self._results = self._results, []
        for state, finished in results:
            if finished:
                self.memory.release(state, keep=True)
                self._memory_full = False
            else:
                self.memory.commit(state)
        return bool(results)

    def _see_arrivals(self, until_s: float) -> None:
        """Lets what arrived by then wait for admission."""
        while self._arrived and self._arrived[0][0] <= until_s:
            self._waiting.append(self._arrived.popleft()[1])

    def _decode_load(self) -> DecodeLoad:
        batch = self._batch
        return DecodeLoad(len(batch), batch.context_tokens, batch.longest_tokens, self.memory.shared_tokens)

    def _ran(self, start_s: float, end_s: float, load: DecodeLoad) -> None:
        """Notes when the last iteration ran. With `overlap`, the next one is launched before its results are known; so
        where every request has ended, one more decode step with this load runs in vain.
        """
        if not self.config.overlap or self.idle:
            self._process_results()
        self._last_start_s = start_s
        self._free_s = end_s
        if self.config.overlap and not self._runs:
            self._free_s += self.cost_model.decode_step_s(load)

    def _check(self, request: EngineRequest) -> None:
        """Raises ValueError unless the request can run when it is alone."""
        if request.rid in self._states:
            raise ValueError(f"request id {request.rid!r} is in use")
        if request.prompt_tokens < 1 or request.output_tokens < 0:
            raise ValueError("a request has at least one prompt token and a length of output that is not negative")
        stored = request.prompt_tokens + max(request.output_tokens, 1) - 1  # the last token gets no KV
        if self.memory.pages_for(stored) > self.memory.capacity_pages:
            raise ValueError(
                f"{request.prompt_tokens} prompt and {request.output_tokens} output tokens exceed the KV capacity of "
                f"{self.config.kv_capacity_tokens} tokens"
            )
        if len(request.pages) < stored // self.config.page_size:
            raise ValueError(f"{len(request.pages)} pages do not name the {stored} tokens that will have KV")

    def _plan_prefill(self) -> list[Planned]:
        """The next prefill step; empty when decoding comes next."""
        if self._chunked is None and (self._memory_full or not len(self._waiting)):
            return []
        admission = Admission(self.config, self.memory, self._reserved_tokens())
        if self._chunked is not None:
            if not admission.resume(self._chunked):
                return admission.planned
            self._chunked = None
        self._waiting.order(self.memory)
        admitted = 0
        for state in self._waiting:
            if len(self._batch) + len(admission.planned) >= self.config.max_running_requests:
                self._memory_full = True
                break
            verdict = admission.add(state, alone=not len(self._batch) and not self._results)
            if verdict is Verdict.NO_MEMORY:
                self._memory_full = True
            if verdict in {Verdict.NO_MEMORY, Verdict.STEP_FULL}:
                break
            admitted += 1
            if verdict is Verdict.CHUNKED:
                self._chunked = state
                break
        self._waiting.drop(admitted)
        return admission.planned

    def _reserved_tokens(self) -> float:
        """Memory that admission leaves to the requests that decode."""
        clip = self.config.clip_new_tokens
        batch = self._batch
        return self._ratio * sum(min(one.request.limit_tokens - batch.produced(one), clip) for one in batch)

    def _prefill(self, planned: Sequence[Planned], now_s: float, retracted: Sequence[str]) -> StepResult:
        duration_s = self.cost_model.prefill_s(plan.chunk for plan in planned)
        outputs = []
        for plan in planned:
            if plan.state is self._chunked:
                self.memory.commit(plan.state)
            else:
                outputs.append(self._prefilled(plan.state))
        tokens = sum(plan.chunk.new_tokens for plan in planned)
        contexts = [sum(plan.chunk) for plan in planned]
        self._ran(now_s, now_s + duration_s, DecodeLoad(len(planned), sum(contexts), max(contexts)))
        self._meter.prefilled(planned, duration_s)
        self._meter.produced(sum(output.new_tokens for output in outputs), 0, now_s + duration_s)
        return StepResult(
            kind=StepKind.PREFILL,
            duration_s=duration_s,
            outputs=outputs,
            prefill_tokens=tokens,
            started=[plan.state.request.rid for plan in planned if plan.starts],
            retracted=retracted,
        )

    def _prefilled(self, state: RequestState) -> TokenOutput:
        """A prompt is read: its next token is there."""
        first = state.produced == 0
        new = 1 if state.request.output_tokens else 0
        state.produced += new
        finished = state.produced >= state.request.output_tokens
        if finished:
            self._finish(state)
        else:
            self._batch.add(state)
            self._results.append((state, False))
        return TokenOutput(
            rid=state.request.rid,
            new_tokens=new,
            cached_tokens=state.cached_tokens or 0,
            first=first,
            finished=finished,
        )

    def _finish(self, state: RequestState) -> None:
        del self._states[state.request.rid]
        self._results.append((state, True))

    def _make_room(self) -> list[str]:
        """Retracts requests until one decode iteration fits: those with the least output first, then the longest
        prompt, as SGLang does. Returns their ids.
        """
        batch = self._batch
        retracted: list[str] = []
        while len(batch) and batch.pages_needed(1) > self.memory.available_pages:
            state = min(batch, key=lambda one: (batch.produced(one), -one.request.prompt_tokens))
            batch.remove(state)
            self.memory.release(state, keep=False)
            self._waiting.append(state)
            retracted.append(state.request.rid)
        if retracted:
            self._memory_full = False
            made = sum(batch.produced(one) for one in batch) + self.config.retract_decode_steps * len(batch)
            self._ratio = min(1.0, made / (sum(one.request.limit_tokens for one in batch) + 1))
        return retracted

    def _decode(self, now_s: float, horizon_s: float | None, retracted: Sequence[str]) -> StepResult:
        batch = self._batch
        load = self._decode_load()
        iterations = 1 if horizon_s is None else self._foldable(load, horizon_s - now_s)
        duration_s = self.cost_model.decode_s(load, iterations)
        self.memory.take(batch.pages_needed(iterations))
        running = None if horizon_s is not None else list(batch)
        finished = batch.advance(iterations)
        for state in finished:
            self._finish(state)
        config = self.config
        decay = (config.new_token_ratio - config.new_token_ratio_min) / config.new_token_ratio_decay_steps
        self._ratio = max(self._ratio - decay * iterations, config.new_token_ratio_min)
        end_s = now_s + duration_s
        last_s = self.cost_model.decode_step_s(load.after(iterations - 1))
        self._ran(end_s - last_s, end_s, load.after(iterations))
        self._meter.produced(load.requests * iterations, iterations, end_s)
        return StepResult(
            kind=StepKind.DECODE,
            duration_s=duration_s,
            outputs=[self._decoded(state, iterations) for state in (finished if running is None else running)],
            iterations=iterations,
            retracted=retracted,
        )

    def _decoded(self, state: RequestState, iterations: int) -> TokenOutput:
        return TokenOutput(
            rid=state.request.rid,
            new_tokens=iterations,
            cached_tokens=state.cached_tokens or 0,
            first=False,
            finished=state.request.rid not in self._states,
        )

    def _foldable(self, load: DecodeLoad, until_s: float) -> int:
        """How many decode iterations can be done as one: until a finish, `until_s`, or memory runs out. One only, where
        a waiting request might be admitted after it.
        """
        if self._may_admit or self._results:
            return 1
        most = self._batch.until_finish()
        if until_s < float("inf"):
            most = min(most, self.cost_model.decode_steps_until(load, until_s))
        available = self.memory.available_pages
        if self._batch.pages_needed(most) <= available:
            return most
        fits, too_many = 1, most  # one fits: _make_room has seen to it
        while fits + 1 < too_many:
            middle = (fits + too_many) // 2
            if self._batch.pages_needed(middle) <= available:
                fits = middle
            else:
                too_many = middle
        return fits
