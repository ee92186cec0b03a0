"""The engine's report of its load, and the counters behind it. Called by engine.py; read by whoever asks the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.simulated.admission import Planned
from workers.simulated.engine_config import EngineConfig
from workers.simulated.kv_memory import KvMemory

THROUGHPUT_ITERATIONS = 40
"""SGLang renews its generation throughput every so many decode iterations (decode_log_interval)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """What SGLang's GET /v1/loads says of one DP rank, in its terms.

    `used_tokens` cannot be evicted; `evictable_tokens` are cached and unused. `waiting_tokens` counts the prompts (and
    answers so far) of waiting requests; `waiting_uncached_tokens` counts what of these, and of a prompt read in part,
    must still be computed. `cache_hit_rate` is that of the last prefill step. Totals count from the start.
    """

    running: int
    waiting: int
    waiting_tokens: int
    waiting_uncached_tokens: int
    used_tokens: int
    evictable_tokens: int
    capacity_tokens: int
    max_running_requests: int
    token_usage: float
    cache_hit_rate: float
    gen_throughput: float
    total_prefill_uncached_tokens: int
    total_prefill_busy_s: float


class LoadMeter:
    """Counters over steps."""

    def __init__(self) -> None:
        self._hit_rate = 0.0
        self._prefill_tokens = 0
        self._prefill_busy_s = 0.0
        self._throughput = 0.0
        self._since_s: float | None = None
        self._tokens = 0
        self._iterations = 0

    def prefilled(self, planned: Sequence[Planned], duration_s: float) -> None:
        """A prefill step was done."""
        new = sum(plan.chunk.new_tokens for plan in planned)
        known = sum(plan.chunk.context_tokens for plan in planned)
        self._hit_rate = known / (new + known)
        self._prefill_tokens += new
        self._prefill_busy_s += duration_s

    def produced(self, tokens: int, iterations: int, now_s: float) -> None:
        """So many tokens came out by `now_s`, in so many decode iterations."""
        if self._since_s is None:
            self._since_s = now_s
            return
        self._tokens += tokens
        self._iterations += iterations
        if self._iterations >= THROUGHPUT_ITERATIONS and now_s > self._since_s:
            self._throughput = self._tokens / (now_s - self._since_s)
            self._since_s = now_s
            self._tokens = 0
            self._iterations = 0

    def load(
        self,
        *,
        config: EngineConfig,
        memory: KvMemory,
        running: int,
        waiting: int,
        waiting_tokens: int,
        waiting_uncached_tokens: int,
    ) -> EngineLoad:
        """The report."""
        return EngineLoad(
            running=running,
            waiting=waiting,
            waiting_tokens=waiting_tokens,
            waiting_uncached_tokens=waiting_uncached_tokens,
            used_tokens=memory.used_tokens,
            evictable_tokens=memory.cache.evictable_pages * memory.page_size,
            capacity_tokens=config.kv_capacity_tokens,
            max_running_requests=config.max_running_requests,
            token_usage=memory.used_tokens / config.kv_capacity_tokens,
            cache_hit_rate=self._hit_rate,
            gen_throughput=self._throughput,
            total_prefill_uncached_tokens=self._prefill_tokens,
            total_prefill_busy_s=self._prefill_busy_s,
        )
