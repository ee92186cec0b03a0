"""One DP rank: a pure engine, and the wall time that drives it.

The engine says how long each step takes on the modelled GPU; `run` waits that long, divided by the speed, against an
absolute deadline, so that timer rounding and a busy machine delay single steps but never add up. What a step produces
is published when the step ends. Not here: what the tokens are (writer), HTTP.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from typing import Any

from workers.simulated.engine import Engine, StepKind, StepResult
from workers.simulated.engine_config import EngineConfig
from workers.simulated.generation import Generation
from workers.simulated.kv_events import KvPublisher
from workers.simulated.kv_watcher import KvWatcher
from workers.simulated.metrics import RankMetrics
from workers.simulated.options import Options
from workers.simulated.request import EngineRequest

LAG_WARNING_S = 1.0
LAG_WARNING_EVERY_S = 10.0

log = logging.getLogger("workers.simulated")


class Rank:
    """Runs one engine. Every method but `run` returns at once."""

    def __init__(self, options: Options, index: int, metrics: RankMetrics, publisher: KvPublisher | None) -> None:
        self._options = options
        self._index = index
        self._metrics = metrics
        self._publisher = publisher
        self._generations: dict[str, Generation] = {}
        self._coming: list[tuple[float, int, Generation]] = []  # by the moment at which the engine sees them
        self._submissions = 0
        self._wake = asyncio.Event()
        self._frozen_load: dict[str, Any] | None = None
        self.last_output_s = float("-inf")
        self.lag_s = 0.0
        self._next_warning_s = 0.0
        self._engine = self._new_engine()

    def _new_engine(self) -> Engine:
        options = self._options
        config = EngineConfig(
            kv_capacity_tokens=options.kv_capacity_tokens,
            page_size=options.page_size,
            max_running_requests=options.max_running_requests,
            chunked_prefill_tokens=options.chunked_prefill_tokens,
            schedule_policy=options.schedule_policy,
            overlap=options.overlap,
        )
        watcher = KvWatcher(self._metrics, options.page_size, self._publisher)
        watcher.cleared()  # SGLang's first event
        return Engine(config, options.cost_model, listener=watcher)

    def _model_time(self, wall_s: float) -> float:
        """The modelled time at a moment of the monotonic clock."""
        return wall_s * self._options.speed

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._generations

    def submit(self, generation: Generation, ready_s: float | None = None) -> None:
        """Takes a generation, which the engine sees at `ready_s` of the monotonic clock, or now."""
        self._generations[generation.rid] = generation
        self._submissions += 1
        at_s = time.monotonic() if ready_s is None else ready_s
        generation.ready_s = at_s
        heapq.heappush(self._coming, (at_s, self._submissions, generation))
        self._wake.set()

    def _admit(self, until_s: float) -> None:
        """Hands the engine what is ready by then."""
        while self._coming and self._coming[0][0] <= until_s:
            ready_s, _, generation = heapq.heappop(self._coming)
            if self._generations.get(generation.rid) is generation:  # not aborted meanwhile
                self._start(generation, ready_s)

    def _start(self, generation: Generation, ready_s: float) -> None:
        request = EngineRequest.of_tokens(
            rid=generation.rid,
            prompt=generation.prompt,
            output=generation.plan.tokens,
            page_size=self._options.page_size,
            namespace=generation.namespace,
            max_new_tokens=generation.limit_tokens,
            reusable_tokens=None if generation.wanted is None else generation.wanted.start,
        )
        self._engine.submit(request, self._model_time(ready_s))

    def abort(self, generation: Generation) -> None:
        """Frees the generation's slot and cache now. Nothing happens when it has ended."""
        if self._generations.pop(generation.rid, None) is None:
            return
        self._engine.abort(generation.rid)
        self._metrics.aborted += 1
        reason = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}
        generation.finish(reason, time.monotonic())

    def flush_cache(self) -> bool:
        """Empties the cache. False, and nothing happens, while something runs or waits, as in SGLang."""
        flushed = self._engine.flush_cache()
        self._send_events()
        return flushed

    def drop_unused_cache(self) -> None:
        """A fault: empties the cache of all that no request uses, whatever runs."""
        if not self.flush_cache():
            cache = self._engine.memory.cache
            cache.evict(cache.evictable_pages)
            self._send_events()

    def restart(self) -> None:
        """A new, empty engine. The caller has aborted what ran on the old one."""
        if self._publisher is not None:
            self._publisher.restart()
        self._engine = self._new_engine()
        self._send_events()

    def freeze_load(self, *, frozen: bool) -> None:
        """A fault: `load` keeps its present answer until thawed."""
        if not frozen:
            self._frozen_load = None
        elif self._frozen_load is None:
            self._frozen_load = self.load()

    def load(self) -> dict[str, Any]:
        """The core fields of SGLang's load report, in its order."""
        if self._frozen_load is not None:
            return self._frozen_load
        options = self._options
        load = self._engine.load()
        total = load.used_tokens + load.waiting_tokens
        return {
            "num_running_reqs": load.running,
            "num_waiting_reqs": load.waiting,
            "num_waiting_uncached_tokens": load.waiting_uncached_tokens,
            "num_used_tokens": load.used_tokens,
            "num_total_tokens": total,
            "num_active_tokens": total,
            "num_prealloc_ready_tokens": 0,
            "max_total_num_tokens": options.kv_capacity_tokens,
            "max_running_requests": options.max_running_requests,
            "token_usage": round(load.token_usage, 4),
            "gen_throughput": round(load.gen_throughput * options.speed, 2),
            "cache_hit_rate": round(load.cache_hit_rate, 4),
            "utilization": 0.0,
            "total_prefill_uncached_tokens": load.total_prefill_uncached_tokens,
            "total_prefill_busy_us": int(load.total_prefill_busy_s / options.speed * 1e6),
            "decode_moments": None,
        }

    async def run(self) -> None:
        """Steps the engine for ever."""
        self._send_events()
        deadline_s = time.monotonic()
        while True:
            if self._engine.idle:
                deadline_s = max(deadline_s, await self._next_arrival())
            self._admit(deadline_s)
            started_s = deadline_s
            result = self._engine.step(self._model_time(deadline_s))
            deadline_s += result.duration_s / self._options.speed
            await asyncio.sleep(max(0.0, deadline_s - time.monotonic()))
            now_s = time.monotonic()
            self._note_lag(now_s - deadline_s, now_s)
            self._publish(result, started_s, now_s)

    async def _next_arrival(self) -> float:
        """Waits until the engine has something to do. Returns since when, on the monotonic clock."""
        while True:
            self._wake.clear()
            while self._coming and self._generations.get(self._coming[0][2].rid) is not self._coming[0][2]:
                heapq.heappop(self._coming)  # aborted
            wait_s = self._coming[0][0] - time.monotonic() if self._coming else None
            if wait_s is not None and wait_s <= 0:
                return self._coming[0][0]
            try:
                await asyncio.wait_for(self._wake.wait(), wait_s)
            except TimeoutError:
                continue

    def _note_lag(self, lag_s: float, now_s: float) -> None:
        """Keeps how late the last step ended, and says so when this machine cannot keep up with the modelled GPU."""
        self.lag_s = lag_s
        if lag_s > LAG_WARNING_S and now_s >= self._next_warning_s:
            self._next_warning_s = now_s + LAG_WARNING_EVERY_S
            log.warning("rank %d is %.1f s behind the GPU it models; its times are too long now", self._index, lag_s)

    def _publish(self, result: StepResult, started_s: float, now_s: float) -> None:
        """Tells the listeners of everything that has advanced in a step."""
        self._send_events()
        for rid in result.retracted:
            if rid in self._generations:
                self._generations[rid].retractions += 1
        for output in result.outputs:
            generation = self._generations.get(output.rid)
            if generation is None:
                continue  # aborted while the step ran
            if output.first:
                generation.cached_tokens = output.cached_tokens
                generation.queue_s = max(0.0, started_s - generation.ready_s)
                self._metrics.queue_s.observe(generation.queue_s)
            generation.produced += output.new_tokens
            if output.new_tokens:
                self._metrics.tokens(generation, output.new_tokens, now_s)
                generation.last_token_s = now_s
                if generation.first_token_s is None:
                    generation.first_token_s = now_s
            if output.finished:
                del self._generations[output.rid]
                self._metrics.finished(generation, now_s)
                generation.finish(generation.plan.finish_reason, now_s)
            elif generation.listener is not None:
                generation.listener(generation)
        if result.kind is not StepKind.IDLE:
            self.last_output_s = now_s

    def _send_events(self) -> None:
        if self._publisher is not None:
            self._publisher.flush()
