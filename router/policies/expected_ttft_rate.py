"""Seconds of prefill for so many tokens on one worker, learned from what it did. Arithmetic over counts.

Called by expected_ttft_worker. Not here: how long a request waits, or what is cached.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

STEP_S: Final = 0.01131
TOKEN_S: Final = 1.954e-5
PAIR_S: Final = 3.417e-9
CONTEXT_S: Final = 3.875e-6
"""Where learning starts: Qwen3-8B's shape on one H200 under SGLang 0.5.17, fitted to measured TTFT (docs/tuning.md)."""
RANGE: Final = 100.0
"""A term is learned within this factor of its start: from a laptop's CPU to several generations from now."""

SETTLED: Final = 8
"""Observations until a rate is near enough to be compared with another's; each may move it far until then."""
BOUND: Final = log(RANGE)

Costs = tuple[float, float, float, float]


class PrefillRate:
    """Four costs in seconds: of a step, of a token, of a pair of tokens in attention, of a token of context read.

    Learning is multiplicative, by the share that a term has in the prediction, and each observation moves it by a few
    per cent at most, whatever it says: outliers, of which waiting in disguise is the usual one, hardly matter.
    """

    __slots__ = ("costs", "logs", "observations")

    def __init__(self) -> None:
        self.costs: Costs = (STEP_S, TOKEN_S, PAIR_S, CONTEXT_S)
        self.logs: Costs = (0.0, 0.0, 0.0, 0.0)
        self.observations = 0

    def seconds(self, new_tokens: float, context_tokens: float) -> float:
        """Prefill of `new_tokens` after `context_tokens` whose KV is there."""
        step, token, pair, context = self.costs
        inner = step + new_tokens * (token + 0.5 * new_tokens * pair)
        if not context_tokens:
            return inner
        attention, reading = new_tokens * pair, context
        return inner + context_tokens * (max(reading, attention))

    def features(self, new_tokens: float, context_tokens: float) -> Costs:
        """The four terms of `seconds`, for `learn`."""
        step, token, pair, context = self.costs
        attention = new_tokens * context_tokens * pair
        reading = context_tokens * context
        inner = 0.5 * new_tokens * new_tokens * pair
        if attention > reading:
            return step, new_tokens * token, inner + attention, 0.0
        return step, new_tokens * token, inner, reading

    def learn(self, terms: Costs, took_s: float) -> None:
        """Work whose `features` summed to `terms` took `took_s`."""
        predicted = sum(terms, 0.0)
        if not (1e-4 < took_s < 3600.0) or predicted <= 0.0:
            return
        limit = 2.0 if self.observations < SETTLED else 0.5
        error = max(-limit, min(limit, log(took_s / predicted)))
        moved = max(0.06, 0.5 / (1 + self.observations)) * error / predicted
        step, token, pair, context = self.logs
        one, two, three, four = terms
        logs = (step + moved * one, token + moved * two, pair + moved * three, context + moved * four)
        if max(logs) > BOUND or min(logs) < -BOUND:
            step, token, pair, context = (max(-BOUND, min(BOUND, value)) for value in logs)
            logs = (step, token, pair, context)
        self.set(logs, self.observations + 1)

    def set(self, logs: Costs, observations: int) -> None:
        """The logarithms of the costs, in multiples of where learning starts, and what they were learned from."""
        self.logs = logs
        self.observations = observations
        step, token, pair, context = logs
        self.costs = (STEP_S * exp(step), TOKEN_S * exp(token), PAIR_S * exp(pair), CONTEXT_S * exp(context))
