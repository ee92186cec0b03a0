"""Two figures that expected_ttft learns of the fleet as a whole: tokens per estimated token, and how much of what is
evicted is asked for again. Arithmetic; called by expected_ttft only.
"""

from __future__ import annotations

from math import exp, log

MOST_MODELS = 256
"""Models whose scale is kept; names come from clients."""


class TokenScale:
    """Real prompt tokens per estimated one, by model. Starts at 1: what the prompt key estimated."""

    def __init__(self) -> None:
        self._logs: dict[str | None, float] = {}

    def of(self, model: str | None) -> float:
        value = self._logs.get(model)
        return 1.0 if value is None else exp(value)

    def learn(self, model: str | None, estimated: float, reported: int | None) -> float:
        """Learns from one prompt, and returns that prompt's own ratio; the model's where nothing usable is reported."""
        if reported is None or reported < 1 or estimated <= 0.0 or not 1 / 16 <= reported / estimated <= 16:
            return self.of(model)
        ratio = reported / estimated
        known = self._logs.get(model)
        if known is None:
            if len(self._logs) >= MOST_MODELS or abs(ratio - 1.0) < 1e-9:
                return ratio
            self._logs[model] = log(ratio)
        else:
            # A long prompt says more: its overhead of template and rounding weighs less.
            weight = 0.1 * min(1.0, estimated / 1000.0)
            self._logs[model] = known + weight * (log(ratio) - known)
        return ratio


class Wanted:
    """The share of evicted tokens that are asked for again while no worker holds them."""

    PRIOR, PRIOR_TOKENS = 0.35, 500_000.0
    """Start of the share, and how many tokens of evidence it weighs."""
    MOST_TOKENS = 2e7
    """Evidence beyond this is old: it is halved."""

    def __init__(self) -> None:
        self._wanted = self.PRIOR * self.PRIOR_TOKENS
        self._all = self.PRIOR_TOKENS

    @property
    def share(self) -> float:
        return self._wanted / self._all

    def learn(self, *, wanted_tokens: float = 0.0, unwanted_tokens: float = 0.0) -> None:
        self._wanted += wanted_tokens
        self._all += wanted_tokens + unwanted_tokens
        if self._all > self.MOST_TOKENS:
            self._wanted /= 2
            self._all /= 2
