"""The path of a request to the engine: when one that arrives now can join a step.

Pure arithmetic on the caller's clock. Called by rank.py (wall time) and calibration (virtual time). Not here: the
engine, which is told of a request when it is ready.
"""

from __future__ import annotations

from workers.simulated.cost_model import CostModel


class FrontEnd:
    """One server's front end: reads one request after another, in order of arrival."""

    def __init__(self, cost_model: CostModel) -> None:
        self._cost_model = cost_model
        self._free_s = float("-inf")

    def ready_s(self, now_s: float, prompt_tokens: int, *, text: bool) -> float:
        """When a request that arrives at `now_s` is ready for the engine; books the time until then."""
        model = self._cost_model
        token_s = model.front_end_token_s + (model.front_end_text_token_s if text else 0.0)
        self._free_s = max(now_s, self._free_s) + model.front_end_request_s + prompt_tokens * token_s
        return self._free_s + model.front_end_latency_s
