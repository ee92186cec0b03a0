"""Replay: traffic through a policy to simulated engines on a virtual clock. Deterministic by seed; no sockets.

Called by the commands, by sweeps, by scenarios, and by whoever tunes a policy:

    traffic = traffic_of(read_trace(path, limit=2500))
    run = replay(traffic, "round_robin", ReplayConfig(workers=8, capacity_tokens=699_103, rate=1.2, seed=1))
    run.summary.ttft_s.mean
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from loadtests.measures import Objective, RequestResult, Summary, summarize
from loadtests.replay_clock import ReplayClock
from loadtests.replay_config import ReplayConfig
from loadtests.replay_policy import named_policy
from loadtests.replay_source import ReplayTraffic
from router.policies import Policy
from router.records import FleetEvent

__all__ = ["ReplayConfig", "ReplayRun", "busy_share", "replay"]


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
    clock = ReplayClock(traffic, chosen, config, name, on_result, on_event)
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


def busy_share(run: ReplayRun) -> float:
    """Share of the run during which the mean engine computed."""
    duration_s = run.summary.duration_s
    return sum(run.busy_s) / (len(run.busy_s) * duration_s) if duration_s else 0.0
