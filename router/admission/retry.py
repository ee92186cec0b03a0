"""When a failed attempt may be repeated on another worker, and after what pause. Pure: time and chance are arguments.

Retries are paid from a budget that traffic fills, so that a fleet in trouble is not finished off by them. A budget per
request would multiply its load by the attempts allowed. Called by request.dispatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from router.compiled import interpreted
from router.errors import WorkerBusy, WorkerError, WorkerRefused, WorkerUnreachable
from router.knob import knob, require

BUSY_STATUSES = (429, 503)
MAX_PAUSE_S = 30.0
"""A worker that asks for more patience than this is asked again after it."""
DEFAULT_PAUSE_S = 0.5
"""For a worker that is full and does not say for how long."""


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    budget_ratio: float = knob(0.2, "retries allowed, as a share of requests")
    budget_floor: int = knob(50, "retries allowed at once however little traffic there was; refilled in 10 s")
    backoff_s: float = knob(0.025, "upper bound of the random pause before a second retry; doubles with each")
    backoff_max_s: float = knob(1.0, "upper bound of any such pause")

    def __post_init__(self) -> None:
        require(0 <= self.budget_ratio <= 1, "budget_ratio must be between 0 and 1")
        require(self.budget_floor >= 0, "budget_floor must not be negative")
        require(0 <= self.backoff_s <= self.backoff_max_s, "backoff_s must be between 0 and backoff_max_s")


class RetryBudget:
    """A bucket that each request fills by `budget_ratio` and each retry empties by one; also refilled with time."""

    def __init__(self, config: RetryConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._ratio = config.budget_ratio
        self._most = max(10.0 * config.budget_floor, 10.0)
        self._left = float(config.budget_floor)
        self._filled_s: float | None = None
        self.refused = 0

    @property
    def left(self) -> float:
        """Retries that could be made now."""
        return self._left

    def request(self) -> None:
        """A request came in."""
        self._left = min(self._left + self._ratio, self._most)

    def retry(self, now_s: float) -> bool:
        """Take one retry, if there is one."""
        floor = self._config.budget_floor
        if self._filled_s is not None and self._left < floor:
            self._left = min(floor, self._left + floor * (now_s - self._filled_s) / 10.0)
        self._filled_s = now_s
        if self._left < 1:
            self.refused += 1
            return False
        self._left -= 1
        return True

    def pause_s(self, error: WorkerError, attempt: int) -> float:
        """Seconds before attempt number `attempt` (from 2 on). None before the first retry of what never arrived."""
        if attempt <= 2 and isinstance(error, WorkerUnreachable):
            return 0.0
        most_s = min(self._config.backoff_s * 2 ** max(attempt - 2, 0), self._config.backoff_max_s)
        return self._rng.uniform(0.0, most_s)


def refusal(worker_name: str, status: int, retry_after: str | None) -> WorkerRefused:
    """The error for an answer with this status: busy or broken, with the pause that the worker asks for."""
    if status not in BUSY_STATUSES:
        return WorkerRefused(f"Worker {worker_name} answered {status}.")
    pause_s = pause_asked_s(retry_after)
    return WorkerBusy(f"Worker {worker_name} is busy: it answered {status}.", retry_after_s=max(1, round(pause_s)))


def pause_asked_s(retry_after: str | None) -> float:
    """Seconds of a Retry-After header; a date in it, or nonsense, counts as not said."""
    try:
        asked_s = float(retry_after) if retry_after is not None else DEFAULT_PAUSE_S
    except ValueError:
        asked_s = DEFAULT_PAUSE_S
    return min(max(asked_s, 0.0), MAX_PAUSE_S) if asked_s == asked_s else DEFAULT_PAUSE_S
