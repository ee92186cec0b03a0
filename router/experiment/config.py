"""What an experiment is, as an operator writes it: one record, be it from a file, flags or `POST /experiment`.

Checks what can be checked without a fleet; isolate checks the rest. Not here: how it runs (live).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from router.knob import knob, require

PRIMARY = ("ttft_mean", "ttft_p50", "ttft_p90", "e2e_mean", "itl_mean", "goodput", "cached_ratio")


class Isolation(StrEnum):
    """How arms are kept from warming each other's caches."""

    AUTO = "auto"
    SPLIT = "split"
    ALTERNATE = "alternate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    arms: tuple[str, ...] = knob(
        (), "an arm as NAME=POLICY[:PARAM=VALUE,...][@SHARE]; once per arm, the control first; none: no experiment"
    )
    name: str = knob("experiment", "what the experiment is called in logs and on the dashboard")
    salt: str = knob("", "salt of the assignment of sessions; unset: drawn anew for every experiment")
    isolation: Isolation = knob(Isolation.AUTO, "split (each arm has its own workers), alternate (in time) or auto")
    primary: str = knob("ttft_mean", f"the one measure that decides: {', '.join(PRIMARY)}")
    alpha: float = knob(0.05, "chance of a wrong decision that is accepted, over all looks together")
    planned_requests: int = knob(10_000, "requests per arm at which intervals are narrowest; no limit")
    no_difference: float = knob(
        0.03, "the experiment ends without a winner when the primary's relative interval is within plus and minus this"
    )
    warmup_s: float = knob(60.0, "seconds from the start that count for nothing, while the arms' caches fill")
    max_s: float = knob(86_400.0, "seconds after which the experiment ends in any case")
    block_s: float = knob(10.0, "seconds of a block of time in which requests are taken to resemble each other")
    period_s: float = knob(120.0, "alternate: seconds of one arm's turn")
    washout_s: float = knob(20.0, "alternate: seconds at the start of a turn that count for nothing")
    goodput_ttft_s: float = knob(1.0, "TTFT in seconds up to which an answer counts as good ...")
    goodput_itl_s: float = knob(0.1, "... if its mean time between events is no longer than this, in seconds")
    guard_error_rate: float = knob(0.05, "an arm whose error rate exceeds the control's by more than this is ended")
    guard_slowdown: float = knob(0.5, "an arm whose mean TTFT is longer by more than this share is ended")

    def __post_init__(self) -> None:
        require(self.primary in PRIMARY, f"primary must be one of {', '.join(PRIMARY)}")
        require(0 < self.alpha < 0.5, "alpha must be between 0 and 0.5")
        require(self.planned_requests >= 100, "planned_requests must be at least 100")
        require(self.block_s > 0 and self.period_s > 0 and self.max_s > 0, "times must be positive")
        require(0 <= self.washout_s < self.period_s, "washout_s must be shorter than period_s")
        require(self.warmup_s >= 0, "warmup_s must not be negative")
        require(0 < self.guard_error_rate < 1, "guard_error_rate must be between 0 and 1")
        require(self.guard_slowdown > 0, "guard_slowdown must be positive")
