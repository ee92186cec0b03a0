"""One simulated engine in virtual time, as a router meets it: a view of load, and answers that come when they come.

Decode steps are done lazily: while only decoding can happen, the engine stands still until its next answer is due, or
until something is submitted or asked, and then does all steps up to that moment at once. The order of what happens is
that of stepping one by one. Called by replay.py. Not here: policies, arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.types import LoadReport, WorkerId
from workers.simulated.cost_model import CostModel
from workers.simulated.engine import Engine, TokenOutput
from workers.simulated.engine_config import EngineConfig
from workers.simulated.front_end import FrontEnd
from workers.simulated.radix_cache import Pages
from workers.simulated.request import EngineRequest


class ReplayWorker:
    """A router.types.WorkerView. `due_s` is when `advance` must be called next; None while idle. A request is submitted
    when `front_end` has it ready.
    """

    def __init__(self, worker: WorkerId, config: EngineConfig, cost_model: CostModel) -> None:
        self.id = worker
        self.in_flight = 0
        self.load: LoadReport | None = None
        self.due_s: float | None = None
        self.busy_s = 0.0
        self.front_end = FrontEnd(cost_model)
        self._engine = Engine(config, cost_model)
        self._decoding_since_s: float | None = None  # steps from here on are not done yet
        self._outputs: Sequence[TokenOutput] = ()  # of the step that ends at due_s

    def submit(self, request: EngineRequest, now_s: float) -> None:
        """Queues a request; it joins the step that starts after the one under way. Raises ValueError for one that can
        never run here.
        """
        self._catch_up(now_s)
        self._engine.submit(request, now_s)
        if self.due_s is None:
            self._start(now_s)

    def cached_tokens(self, pages: Pages, prompt_tokens: int) -> int:
        """Leading tokens of a prompt that the cache holds, in whole pages."""
        memory = self._engine.memory
        return memory.cache.peek(None, pages, prompt_tokens // memory.page_size) * memory.page_size

    def advance(self) -> Sequence[TokenOutput]:
        """What comes out at `due_s`; the next step has started."""
        assert self.due_s is not None
        now_s = self.due_s
        if self._decoding_since_s is not None:
            self._catch_up(float("inf"))
        outputs = self._outputs
        self._start(now_s)
        return outputs

    def report(self, now_s: float) -> LoadReport:
        """What GET /v1/loads would say now; kept as `load`."""
        self._catch_up(now_s)
        load = self._engine.load()
        self.load = LoadReport(
            at_s=now_s,
            running=load.running,
            waiting=load.waiting,
            waiting_uncached_tokens=load.waiting_uncached_tokens,
            used_tokens=load.used_tokens,
            capacity_tokens=load.capacity_tokens,
            max_running=load.max_running_requests,
            token_usage=load.token_usage,
        )
        return self.load

    def _start(self, now_s: float) -> None:
        """Starts what comes after a step that ended, or after idleness."""
        self._outputs = ()
        self._decoding_since_s = None
        if self._engine.idle:
            self.due_s = None
            return
        quiet_s = self._engine.quiet_s()
        if quiet_s is not None:
            self._decoding_since_s = now_s
            self.due_s = now_s + quiet_s
        else:
            self._step(now_s, now_s)

    def _catch_up(self, until_s: float) -> None:
        """Does the decode steps that were put off, up to the first that ends at `until_s` or later."""
        since_s = self._decoding_since_s
        if since_s is not None:
            self._decoding_since_s = None
            self._step(since_s, until_s)

    def _step(self, since_s: float, until_s: float) -> None:
        result = self._engine.step(since_s, until_s)
        self._outputs = result.outputs
        self.due_s = since_s + result.duration_s
        self.busy_s += result.duration_s
