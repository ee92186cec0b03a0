"""What one process does for the whole router: judges workers, probes them, polls their load, ends experiments, saves
state, watches the configuration. A single process leads itself; of several, one does. Built by app.
"""

from __future__ import annotations

import httpx

from router.clock import Clock
from router.config import RouterConfig
from router.fleet.collapse import CollapseDetector
from router.fleet.health import HealthMonitor
from router.fleet.judge import Judge
from router.fleet.load import Get, LoadMonitor
from router.fleet.registry import Registry
from router.insight import Insight
from router.spawn import Spawn
from router.state.keeper import StateKeeper
from router.state.reload import Reloader


class Lead:
    """Each method is called once, in this order, when the process begins to lead. `keeper`: None keeps no state."""

    def __init__(
        self, config: RouterConfig, registry: Registry, insight: Insight, keeper: StateKeeper | None, clock: Clock
    ) -> None:
        self._config = config
        self._registry = registry
        self._insight = insight
        self._keeper = keeper
        self._clock = clock

    def listen(self) -> None:
        """Judge workers by what requests and load reports say of them."""
        Judge(self._registry, self._config.health.stall_s).listen()
        self._registry.listen(CollapseDetector(self._registry.emptied).observe, *CollapseDetector.HEARS)

    def take_up(self) -> None:
        """Begin the configured experiment, and go on with what the state file keeps; the workers are members."""
        self._insight.begin()
        if self._keeper:
            self._keeper.load()

    def run(self, spawn: Spawn, client: httpx.AsyncClient, get: Get, reloader: Reloader | None) -> None:
        """Start its tasks through `spawn`, whose owner cancels them."""
        health = HealthMonitor(self._config.health, self._registry, client, get, spawn, self._clock)
        load = LoadMonitor(self._config.load, self._registry, get, self._clock, spawn)
        for worker in self._registry.all():
            health.watch(worker)
            load.watch(worker)
        spawn(self._insight.desk.run())
        if self._keeper:
            spawn(self._keeper.run())
        if reloader:
            spawn(reloader.run())
