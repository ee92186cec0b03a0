"""Which waiting requests join the next prefill step, and with how many tokens: SGLang's PrefillAdder.

One `Admission` plans one step. What it admits has its pages at once. Called by engine.py; the order of the queue is
waiting_queue.py's business. Source: SGLang's srt/managers/schedule_policy.py, read at 0.5.x.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from workers.simulated.cost_model import PrefillChunk
from workers.simulated.engine_config import EngineConfig
from workers.simulated.kv_memory import KvMemory
from workers.simulated.request_state import RequestState


class Verdict(Enum):
    """What became of a request that asked to join the step."""

    ADMITTED = "admitted"  # whole
    CHUNKED = "chunked"  # in part; the step is full
    STEP_FULL = "step_full"  # not in this step
    NO_MEMORY = "no_memory"  # not before something is freed


class Planned(NamedTuple):
    """One request's share of the step."""

    state: RequestState
    chunk: PrefillChunk
    starts: bool  # it runs for the first time


class Admission:
    """Plans one prefill step. `reserved_tokens` are kept free for the requests that decode."""

    def __init__(self, config: EngineConfig, memory: KvMemory, reserved_tokens: float) -> None:
        self._config = config
        self._memory = memory
        self._reserved = reserved_tokens
        self._chunk_left = config.chunked_prefill_tokens
        self._input_left = config.max_prefill_tokens
        self.planned: list[Planned] = []

    def resume(self, state: RequestState) -> bool:
        """Goes on with a request that was admitted in part. True when its prompt ends in this step."""
        left = state.fill_tokens - state.kv_tokens
        fits = min(self._chunk_left, self._memory.available_tokens)
        take = min(left, fits)
        if take < left:
            take -= take % self._memory.page_size
        if take > 0:
            self._plan(state, take, left, starts=False)
        return take == left

    def add(self, state: RequestState, *, alone: bool) -> Verdict:
        """Takes a waiting request into the step if budgets and memory allow.

        `alone`: nothing else runs, so that waiting for memory would be in vain; estimates then do not count.
        """
        memory = self._memory
        if self._chunk_left <= 0 or self._input_left <= 0:
            return Verdict.STEP_FULL
        memory.attach(state)
        left = state.fill_tokens - state.kv_tokens
        verdict = self._verdict(state, left, alone=alone)
        if verdict in {Verdict.STEP_FULL, Verdict.NO_MEMORY}:
            memory.release(state, keep=False)
            return verdict
        starts = state.cached_tokens is None
        if starts:
            state.cached_tokens = state.kv_tokens
        take = left
        if verdict is Verdict.CHUNKED:
            take = min(self._chunk_left, memory.available_tokens)
            take -= take % memory.page_size
        self._plan(state, take, left, starts=starts)
        return verdict

    def _verdict(self, state: RequestState, left: int, *, alone: bool) -> Verdict:
        memory = self._memory
        whole_pages = memory.pages_for(left) * memory.page_size
        if alone and not self.planned:
            return Verdict.ADMITTED if whole_pages <= self._chunk_left else Verdict.CHUNKED
        if left + self._expected(state) + memory.page_size >= memory.available_tokens - self._reserved:
            return Verdict.NO_MEMORY
        if whole_pages >= self._input_left and self.planned:
            return Verdict.STEP_FULL
        if whole_pages <= self._chunk_left:
            return Verdict.ADMITTED
        return Verdict.CHUNKED if self._chunk_left >= memory.page_size else Verdict.STEP_FULL

    def _expected(self, state: RequestState) -> int:
        return min(state.request.limit_tokens - state.produced, self._config.clip_new_tokens)

    def _plan(self, state: RequestState, take: int, left: int, *, starts: bool) -> None:
        """Gives the request its pages and charges the budgets."""
        memory = self._memory
        self.planned.append(Planned(state, PrefillChunk(take, state.kv_tokens), starts))
        memory.extend(state, take)
        charged = memory.pages_for(take) * memory.page_size
        self._chunk_left -= charged
        self._input_left -= charged
        if take == left:
            self._reserved += self._expected(state)
