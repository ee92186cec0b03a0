"""One DP rank: a pure engine, and the wall time that drives it.

The engine says how long each step takes on the modelled GPU; `run` waits that long, divided by the speed, against an
absolute deadline, so that timer rounding and a busy machine delay single steps but never add up. What a step produces
is published when the step ends. Not here: what the tokens are (writer), HTTP.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from workers.simulated.generation import Generation
from workers.simulated.kv_events import KvPublisher
from workers.simulated.metrics import RankMetrics
from workers.simulated.options import Options
from workers.simulated.provisional_engine import Engine, EngineConfig, EngineRequest, StepResult

THROUGHPUT_WINDOW_S = 1.0
"""Generation throughput is measured over at least this long, in modelled time."""


class Rank:
    """Runs one engine. Every method but `run` returns at once."""

    def __init__(self, options: Options, index: int, metrics: RankMetrics, publisher: KvPublisher | None) -> None:
        self._options = options
        self._index = index
        self._metrics = metrics
        self._publisher = publisher
        self._generations: dict[str, Generation] = {}
        self._wake = asyncio.Event()
        self._frozen_load: dict[str, Any] | None = None
        self.last_output_s = float("-inf")
        self.lag_s = 0.0
        self._throughput = 0.0
        self._engine = self._new_engine()

    def _new_engine(self) -> Engine:
        options = self._options
        config = EngineConfig(
            kv_capacity_tokens=options.kv_capacity_tokens,
            page_size=options.page_size,
            max_running_requests=options.max_running_requests,
            chunked_prefill_tokens=options.chunked_prefill_tokens,
            schedule_policy=options.schedule_policy,
        )
        return Engine(config, options.cost_model)

    def _model_time(self, wall_s: float) -> float:
        """The modelled time at a moment of the monotonic clock."""
        return wall_s * self._options.speed

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._generations

    def submit(self, generation: Generation) -> None:
        """Hands a generation to the engine; it joins the next step."""
        self._generations[generation.rid] = generation
        self._engine.submit(
            EngineRequest(
                rid=generation.rid,
                prompt=generation.prompt,
                output=generation.plan.tokens,
                namespace=generation.namespace,
            ),
            self._model_time(time.monotonic()),
        )
        self._wake.set()

    def abort(self, generation: Generation) -> None:
        """Frees the generation's slot and cache now. Nothing happens when it has ended."""
        if self._generations.pop(generation.rid, None) is None:
            return
        self._engine.abort(generation.rid)
        self._metrics.aborted += 1
        reason = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}
        generation.finish(reason, time.monotonic())

    def flush_cache(self) -> None:
        """Empties the cache of everything that no request uses."""
        self._engine.flush_cache()

    def restart(self) -> None:
        """A new, empty engine. The caller has aborted what ran on the old one."""
        self._engine = self._new_engine()

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
        used, waiting = int(load["used_tokens"]), int(load["waiting_uncached_tokens"])
        usage = round(used / options.kv_capacity_tokens, 4)
        running = int(load["running"])
        return {
            "num_running_reqs": running,
            "num_waiting_reqs": int(load["waiting"]),
            "num_waiting_uncached_tokens": waiting,
            "num_used_tokens": used,
            "num_total_tokens": used + waiting,
            "num_active_tokens": used + waiting,
            "num_prealloc_ready_tokens": 0,
            "max_total_num_tokens": options.kv_capacity_tokens,
            "max_running_requests": options.max_running_requests,
            "token_usage": usage,
            "gen_throughput": round(self._throughput, 2),
            "cache_hit_rate": 0.0,
            "utilization": round(max(usage, running / options.max_running_requests), 4),
            "total_prefill_uncached_tokens": 0,
            "total_prefill_busy_us": 0,
            "decode_moments": None,
        }

    async def run(self) -> None:
        """Steps the engine for ever."""
        deadline_s = time.monotonic()
        while True:
            if not self._generations:
                self._wake.clear()
                await self._wake.wait()
                deadline_s = time.monotonic()
            result = self._engine.step(self._model_time(deadline_s))
            deadline_s += result.duration_s / self._options.speed
            await asyncio.sleep(max(0.0, deadline_s - time.monotonic()))
            self.lag_s = time.monotonic() - deadline_s
            self._publish(result, time.monotonic())

    def _publish(self, result: StepResult, now_s: float) -> None:
        """Tells the listeners of everything that has advanced."""
        for output in result.outputs:
            generation = self._generations.get(output.rid)
            if generation is None:
                continue  # aborted while the step ran
            generation.cached_tokens = output.cached_tokens
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
        self.last_output_s = now_s
