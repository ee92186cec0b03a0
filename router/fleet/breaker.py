"""Circuit breaker of one worker: what failed requests say of it, whatever its probes say. Pure: time is an argument.

    closed ──failures──► open ──after a while──► trial (one request at a time) ──answers──► closed
                          ▲──────────────────────────────┘ fails: open again, for twice as long

Owned by fleet.vitals. Not here: which errors count (registry), probes (vitals).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from router.compiled import interpreted
from router.knob import knob, require

WINDOW = 20
"""Requests that the failure ratio is taken over."""
LEAST_RESULTS = 10
"""Fewer results than this make no ratio."""
MAX_DOUBLINGS = 5


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    failures_in_a_row: int = knob(5, "failed requests in a row that take a worker out, whatever its probes say")
    failure_ratio: float = knob(0.5, "share of a worker's last 20 requests whose failure takes it out")
    open_s: float = knob(2.0, "seconds until a worker that was taken out gets a request on trial; doubles, to 32 times")
    trials_to_close: int = knob(2, "requests on trial that must be answered before a worker is back")
    trial_timeout_s: float = knob(30.0, "seconds until the first byte of a request on trial; it then goes elsewhere")

    def __post_init__(self) -> None:
        require(self.failures_in_a_row >= 1, "failures_in_a_row must be at least 1")
        require(0 < self.failure_ratio <= 1, "failure_ratio must be over 0 and at most 1")
        require(self.open_s > 0 and self.trial_timeout_s > 0, "open_s and trial_timeout_s must be positive")
        require(self.trials_to_close >= 1, "trials_to_close must be at least 1")


class BreakerState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    TRIAL = "trial"


class Breaker:
    """Told of every answer and failure; says when a trial is due. `trial_at_s` is meaningless while closed."""

    __slots__ = ("_answered", "_config", "_doublings", "_in_a_row", "_recent", "last", "state", "trial_at_s")

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._answered = 0
        self._doublings = 0
        self.state = BreakerState.CLOSED
        self.trial_at_s = 0.0
        self.last = ""

    @property
    def closed(self) -> bool:
        return self.state is BreakerState.CLOSED

    @property
    def doublings(self) -> int:
        """How often the wait until the next trial has been doubled: kept over a restart of the router."""
        return self._doublings

    def failed(self, now_s: float, why: str) -> None:
        """A request failed there and the worker is to blame."""
        self.last = why
        if self.state is BreakerState.TRIAL:
            self._doublings = min(self._doublings + 1, MAX_DOUBLINGS)
            self._open(now_s)
            return
        self._in_a_row += 1
        self._recent.append(False)
        failures = len(self._recent) - sum(self._recent)
        often = len(self._recent) >= LEAST_RESULTS and failures >= self._config.failure_ratio * len(self._recent)
        if self.closed and (self._in_a_row >= self._config.failures_in_a_row or often):
            self._open(now_s)

    def answered(self) -> None:
        """A request was answered there. While open this is one that was sent before, and says nothing new."""
        if self.state is BreakerState.TRIAL:
            self._answered += 1
            if self._answered >= self._config.trials_to_close:
                self._close()
            return
        if self.state is BreakerState.CLOSED:
            self._in_a_row = 0
            self._recent.append(True)
            if self._doublings and len(self._recent) == WINDOW and all(self._recent):
                self._doublings = 0

    def trip(self, now_s: float, why: str) -> None:
        """Take the worker out for a reason of its own, such as a stall."""
        self.last = why
        if self.closed:
            self._open(now_s)

    def reopened(self, now_s: float, doublings: int) -> None:
        """Open as it was when the router last stopped; the first trial is due at once."""
        self._doublings = min(max(doublings, 0), MAX_DOUBLINGS)
        self.state, self.trial_at_s, self._answered, self.last = BreakerState.OPEN, now_s, 0, "before the restart"

    def follow(self, state: BreakerState, trial_at_s: float, doublings: int, last: str) -> None:
        """Be as the same worker's breaker in the process that judges."""
        if self.state is BreakerState.TRIAL and state is BreakerState.OPEN and trial_at_s < self.trial_at_s:
            return  # it has not heard of the trial yet
        self.state, self.trial_at_s, self._doublings, self.last = state, trial_at_s, doublings, last

    def trial_due(self, now_s: float) -> bool:
        """Whether the next request should go there, to see. One at a time."""
        return self.state is not BreakerState.CLOSED and now_s >= self.trial_at_s

    def trial_begins(self, now_s: float) -> float:
        """A request goes there on trial; returns the seconds until its first byte is due."""
        self.state = BreakerState.TRIAL
        self.trial_at_s = now_s + self._config.trial_timeout_s  # one that says nothing is replaced by then
        return self._config.trial_timeout_s

    def trial_passed(self, now_s: float) -> None:
        """The request on trial is answered: the next one may follow at once."""
        if self.state is BreakerState.TRIAL:
            self.trial_at_s = now_s

    def _open(self, now_s: float) -> None:
        self.state = BreakerState.OPEN
        self.trial_at_s = now_s + self._config.open_s * 2**self._doublings
        self._answered = 0
        self._in_a_row = 0
        self._recent.clear()

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self._in_a_row = 0
        self._recent.clear()
