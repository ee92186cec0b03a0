"""A shadow: asks another policy what it would have done with every live request, and keeps score. Never forwards.

A shadow hears what really happened (the live policy's dispatches), so it always weighs the fleet as it is: its answers
say what it would do with the next request, not what a fleet run by it would look like. That takes an experiment.
Its time is measured and bounded. Beyond its budget it takes part in fewer families of prompts (those that begin with
the same block), but in all requests of those, so that what it knows of them stays whole. Called by steering. Not here:
forwarding, HTTP.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from router.clock import Clock
from router.errors import ConfigError
from router.knob import knob, require
from router.policies import Policy, PolicyConfigs
from router.policies.explains import expected_match_tokens
from router.policies.spec import policy_of
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, RoutingRequest
from router.types import AttemptFailed, RequestId, Workers

PENDING = 10_000
"""Decisions kept until their request ends."""
WINDOW_S = 1.0
"""The budget is kept over windows of this length; what one left over may not be spent in the next."""
FAMILIES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowConfig:
    policies: tuple[str, ...] = knob(
        (), "a policy asked beside the live one, as NAME or NAME:PARAM=VALUE,...; once per shadow"
    )
    cpu_share: float = knob(0.05, "share of one core that all shadows together may take; beyond it they see less")

    def __post_init__(self) -> None:
        require(0 < self.cpu_share <= 1, "must be above 0 and at most 1")
        require(len(self.policies) <= 8, "at most 8 shadows")


class Score:
    """Sums of what live and shadow predicted for the same requests, and of what came of it."""

    def __init__(self) -> None:
        self.asked = 0
        self.skipped = 0
        self.agreed = 0
        self.live_match_tokens = _Mean()
        self.shadow_match_tokens = _Mean()
        self.live_ttft_s = _Mean()
        self.shadow_ttft_s = _Mean()
        self.match_error_tokens = _Mean()
        self.ttft_error_s = _Mean()


class _Mean:
    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.count += 1
            self.total += value

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


class Shadow:
    """One shadow. `budget` is its share of one core. Satisfies `steering.Beside`."""

    def __init__(self, spec: str, policy: Policy, *, budget: float, timer: Clock = time.perf_counter) -> None:
        self.spec = spec
        self.broken = False
        self.score = Score()
        self.spent_s = 0.0
        self._policy = policy
        self._budget = budget
        self._timer = timer
        self._started_s = self._window_s = timer()
        self._window_spent_s = 0.0
        self._sampled = 1.0
        self._pending: OrderedDict[RequestId, Decision] = OrderedDict()

    def ask(self, request: RoutingRequest, workers: Workers, live: Decision) -> None:
        """What would it have done? Asked before anything observes the dispatch."""
        began_s = self._timer()
        if not self._takes_part(request, began_s):
            self.score.skipped += 1
            return
        self._note(request.request_id, live, self._policy.select(request, workers))
        self._spend(began_s)

    def observe(self, event: FleetEvent) -> None:
        """The same events that the live policy hears, for the requests it takes part in."""
        if isinstance(event, Dispatched):
            if event.request.request_id not in self._pending:
                return
        elif isinstance(event, FirstToken | AttemptFailed | Finished) and event.request_id not in self._pending:
            return
        began_s = self._timer()
        self._policy.observe(event)
        if isinstance(event, Finished):
            self._check(event)
        self._spend(began_s)

    def cpu_share(self) -> float:
        """Share of one core spent since the start."""
        return self.spent_s / max(1e-9, self._timer() - self._started_s)

    def view(self) -> dict[str, Any]:
        """The score as JSON; means are over the requests asked about, errors over those where both agreed."""
        score = self.score
        return {
            "policy": self.spec,
            "broken": self.broken,
            "asked": score.asked,
            "skipped": score.skipped,
            "agreement": score.agreed / score.asked if score.asked else None,
            "live_match_tokens_mean": score.live_match_tokens.value,
            "shadow_match_tokens_mean": score.shadow_match_tokens.value,
            "live_expected_ttft_s_mean": score.live_ttft_s.value,
            "shadow_expected_ttft_s_mean": score.shadow_ttft_s.value,
            "match_error_tokens_mean": score.match_error_tokens.value,
            "ttft_error_s_mean": score.ttft_error_s.value,
            "sampled": self._sampled,
            "cpu_share": self.cpu_share(),
            "spent_s": self.spent_s,
        }

    def _note(self, request_id: RequestId, live: Decision, mine: Decision) -> None:
        score = self.score
        score.asked += 1
        score.agreed += mine.worker == live.worker
        score.live_match_tokens.add(expected_match_tokens(live))
        score.shadow_match_tokens.add(expected_match_tokens(mine))
        score.live_ttft_s.add(live.expected_ttft_s)
        score.shadow_ttft_s.add(mine.expected_ttft_s)
        self._pending[request_id] = mine
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)

    def _check(self, event: Finished) -> None:
        """Compare with what happened, where that can be known: on the worker the shadow chose too."""
        mine = self._pending.pop(event.request_id, None)
        if mine is None or mine.worker != event.worker:
            return
        expected = expected_match_tokens(mine)
        if expected is not None and event.outcome.cached_tokens is not None:
            self.score.match_error_tokens.add(abs(expected - event.outcome.cached_tokens))
        ttft_s = event.outcome.ttft_after_hold_s
        if ttft_s is not None and mine.expected_ttft_s is not None:
            self.score.ttft_error_s.add(abs(mine.expected_ttft_s - ttft_s))

    def _takes_part(self, request: RoutingRequest, now_s: float) -> bool:
        if now_s - self._window_s >= WINDOW_S:
            self._begin_window(now_s)
        if self._window_spent_s >= self._budget * WINDOW_S:
            return False
        blocks = request.key.blocks
        family = blocks[0] if blocks else hash(request.request_id)
        return family % FAMILIES < self._sampled * FAMILIES

    def _begin_window(self, now_s: float) -> None:
        """Aim at four fifths of the budget, so that it is seldom cut off in the middle of a window."""
        used = self._window_spent_s / (now_s - self._window_s)
        wanted = 0.8 * self._budget / used if used else 2.0
        self._sampled = min(1.0, self._sampled * min(2.0, max(0.05, wanted)))
        self._window_s, self._window_spent_s = now_s, 0.0

    def _spend(self, began_s: float) -> None:
        took_s = self._timer() - began_s
        self.spent_s += took_s
        self._window_spent_s += took_s


def shadows_of(
    config: ShadowConfig, policies: PolicyConfigs, rng: Random, timer: Clock = time.perf_counter
) -> Sequence[Shadow]:
    """The configured shadows, which share the budget evenly. Raises ConfigError for what is no policy."""
    if len(set(config.policies)) < len(config.policies):
        raise ConfigError("The same shadow is named twice.", param="shadow.policies")
    return [
        Shadow(
            spec,
            policy_of(spec, policies, Random(rng.getrandbits(64))),
            budget=config.cpu_share / len(config.policies),
            timer=timer,
        )
        for spec in config.policies
    ]
