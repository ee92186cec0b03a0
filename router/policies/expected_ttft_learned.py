"""Two figures that expected_ttft learns of the fleet as a whole: tokens per estimated token, and how much of what is
evicted is asked for again. Arithmetic; called by expected_ttft only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from typing import Final

LONGEST_AGE_S: Final = 600_000.0
"""A week is longer than any cache remembers; 10 times it has 23 bits."""
MOST_MODELS: Final = 256
"""Models whose scale is kept; names come from clients."""
PRIOR_TOKENS: Final = 100.0
"""What the prompt key's own estimate weighs, in tokens: a greeting is mostly chat template and moves it little."""
BUCKETS: Final = 24
"""Octaves of age that are told apart."""
SHARE_PRIOR: Final = 0.35
SHARE_EVIDENCE_TOKENS: Final = 500_000.0
"""Start of the share, and how many tokens of evidence it weighs."""
MOST_TOKENS: Final = 2e7
"""Evidence beyond this is old: it is halved."""
NEWS: Final = 0.01
"""Shares are worked out again when so much of the evidence is new."""


class ModelScale:
    """One model's: the ratio, its logarithm, and the estimated tokens that it was learned from."""

    __slots__ = ("log", "ratio", "seen")

    def __init__(self, log: float, seen: float) -> None:
        self.log = log
        self.ratio = exp(log)
        self.seen = seen


class TokenScale:
    """Real prompt tokens per estimated one, by model. Starts at 1: what the prompt key estimated."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: dict[str | None, ModelScale] = {}

    def of(self, model: str | None) -> float:
        known = self._models.get(model)
        return 1.0 if known is None else known.ratio

    def logs(self) -> list[tuple[str | None, float]]:
        """What `restore` takes."""
        return [(model, known.log) for model, known in self._models.items()]

    def restore(self, logs: Iterable[tuple[str | None, float]]) -> None:
        """Take up what another one has learned."""
        self._models = {model: ModelScale(value, 100 * PRIOR_TOKENS) for model, value in logs}

    def learn(self, model: str | None, estimated: float, reported: int | None) -> float:
        """Learns from one prompt, and returns that prompt's own ratio; the model's where nothing usable is reported."""
        if reported is None or reported < 1 or estimated <= 0.0 or not 1 / 16 <= reported / estimated <= 16:
            return self.of(model)
        ratio = reported / estimated
        known = self._models.get(model)
        if known is None:
            if len(self._models) >= MOST_MODELS or abs(ratio - 1.0) < 1e-9:
                return ratio
            known = self._models[model] = ModelScale(0.0, PRIOR_TOKENS)
        # A long prompt says more: its overhead of template and rounding weighs less. Old ones fade.
        weight = max(estimated / (known.seen + estimated), 0.1 * min(1.0, estimated / 1000.0))
        known.log += weight * (log(ratio) - known.log)
        known.ratio = exp(known.log)
        known.seen += estimated
        return ratio


class Wanted:
    """The share of cached tokens that are asked for again, given how long ago they were last used.

    Ages are counted in octaves. A stretch of tokens ends its life in one of two ways: used again at some age, or
    evicted and not asked for during two more turnovers of the cache.
    """

    def __init__(self) -> None:
        self.again = [0.0] * BUCKETS
        self.never = [0.0] * BUCKETS
        self._total = 0.0
        self._since = 0.0  # evidence since the shares were worked out
        self._shares = self._worked_out()

    def share(self, age_s: float) -> float:
        """For tokens last used `age_s` ago."""
        if self._since > NEWS * (self._total + SHARE_EVIDENCE_TOKENS):
            self._shares = self._worked_out()
            self._since = 0.0
        return self._shares[self._bucket(age_s)]

    def learn(self, tokens: float, age_s: float, *, again: bool) -> None:
        (self.again if again else self.never)[self._bucket(age_s)] += tokens
        self._total += tokens
        self._since += tokens
        if self._total > MOST_TOKENS:
            self.again = [value / 2 for value in self.again]
            self.never = [value / 2 for value in self.never]
            self._total /= 2

    def restore(self, again: Sequence[float], never: Sequence[float]) -> None:
        """Take up what another one has learned: evidence per bucket, in tokens."""
        self.again, self.never = list(again), list(never)
        self._total = sum(again, 0.0) + sum(never, 0.0)
        self._since = 0.0
        self._shares = self._worked_out()

    def _worked_out(self) -> list[float]:
        again, never = SHARE_PRIOR * SHARE_EVIDENCE_TOKENS, (1 - SHARE_PRIOR) * SHARE_EVIDENCE_TOKENS
        shares = []
        for more, none in zip(reversed(self.again), reversed(self.never), strict=True):
            # Of those used again in this bucket, half were still to come in its middle.
            never += none
            shares.append((again + more / 2) / (again + more / 2 + never))
            again += more
        return shares[::-1]

    def _bucket(self, age_s: float) -> int:
        """Octaves of a tenth of a second: 0 for less than one, and everything past a week in the last."""
        if not 0.0 < age_s < LONGEST_AGE_S:
            return 0 if age_s <= 0.0 else BUCKETS - 1
        return int(age_s * 10.0).bit_length()
