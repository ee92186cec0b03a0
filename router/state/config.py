"""Settings of the saved state. A module of its own because router.config composes it and state.live reads that."""

from __future__ import annotations

from dataclasses import dataclass

from router.knob import knob, require


@dataclass(frozen=True, slots=True, kw_only=True)
class StateConfig:
    file: str = knob("", "file that keeps what was learned over a restart of the router; empty: nothing is kept")
    interval_s: float = knob(60.0, "seconds between two savings; the last one is made when the router stops")
    max_age_s: float = knob(900.0, "state older than this many seconds is not taken up: caches have changed since")

    def __post_init__(self) -> None:
        require(self.interval_s > 0 and self.max_age_s > 0, "interval_s and max_age_s must be positive")
