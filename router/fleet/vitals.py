"""What is known of one worker's health and what state follows from it. Pure: time is an argument.

Probes, refused connections, signs of progress and the breaker come in; `verdict` says the state that is true now. Busy
is not dead: a probe that fails while the worker moves on counts for nothing. Hysteresis both ways: several failures
take a worker out, several answers bring it back, more of them each time it comes and goes. Owned by worker, driven by
health and registry. Not here: HTTP (health), who hears of a change (registry).
"""

from __future__ import annotations

from dataclasses import dataclass

from router.compiled import interpreted
from router.fleet.breaker import Breaker, BreakerConfig
from router.fleet.state import WorkerState
from router.knob import knob, require

FLAP_WINDOW_S = 120.0
"""Falls within this time of each other count as flapping."""
MAX_ANSWERS = 8
NEVER_S = float("-inf")


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    interval_s: float = knob(5.0, "seconds between two probes of a ready worker")
    retry_interval_s: float = knob(1.0, "seconds between two probes of a worker that is not ready")
    timeout_s: float = knob(25.0, "seconds a probe may take; SGLang itself gives up after 20")
    failures_to_degrade: int = knob(3, "failed probes in a row that make a ready worker degraded")
    answers_to_ready: int = knob(2, "answered probes in a row that bring a worker back; doubles while it flaps")
    path: str = knob("/health", "what is probed on a worker")
    connect_interval_s: float = knob(1.0, "seconds between two checks that a worker accepts connections; 0: none")
    connect_timeout_s: float = knob(2.0, "seconds such a check may take")
    stall_s: float = knob(
        60.0, "seconds without progress after which a worker that holds requests is hung, and a request that it does "
        "not count any more is lost; 0: never"
    )  # fmt: skip
    startup_grace_s: float = knob(900.0, "seconds a new worker may take to load its model before it counts as degraded")
    warm_s: float = knob(30.0, "seconds over which a worker that joins a running fleet gets its share; 0: at once")
    expand_ranks: bool = knob(True, "make each data-parallel rank of a server a worker of its own")

    def __post_init__(self) -> None:
        require(self.interval_s > 0 and self.retry_interval_s > 0, "intervals must be positive")
        require(self.timeout_s > 1.0, "timeout_s must be over 1 s: SGLang's /health takes at least that long")
        require(self.failures_to_degrade >= 1, "failures_to_degrade must be at least 1")
        require(self.answers_to_ready >= 1, "answers_to_ready must be at least 1")
        require(self.path.startswith("/"), "path must start with '/'")
        require(self.connect_interval_s >= 0, "connect_interval_s must not be negative")
        require(self.connect_timeout_s > 0, "connect_timeout_s must be positive")
        least = min(self.stall_s, self.startup_grace_s, self.warm_s)
        require(least >= 0, "stall_s, startup_grace_s and warm_s must not be negative")


class Vitals:
    """One worker's. `why` is the last thing that spoke against it, in words for people."""

    __slots__ = (
        "_answer_s", "_answers", "_config", "_falls", "_fell_s", "breaker", "failures", "joined_s", "progress_s",
        "quiet_since_s", "refused", "stalled", "why",
    )  # fmt: skip

    def __init__(self, config: HealthConfig, breaker: BreakerConfig, now_s: float) -> None:
        self._config = config
        self.breaker = Breaker(breaker)
        self.joined_s = now_s
        self.failures = 0
        self._answers = 0
        self._answer_s = NEVER_S
        self._falls = 0
        self._fell_s = NEVER_S
        self.refused = False
        self.stalled = False
        self.progress_s = NEVER_S
        self.quiet_since_s: float | None = None
        self.why = "not probed yet"

    # -- what happens -------------------------------------------------------------------------------------------

    def probe_answered(self, now_s: float) -> None:
        self._answer_s = now_s
        self.failures = 0
        self.refused = False
        self._answers += 1

    def probe_failed(self, began_s: float, why: str) -> None:
        """A probe that began then got no good answer; nothing follows where the worker has moved since."""
        self._answers = 0
        if self.progress_s >= began_s:
            self.why = f"busy: {why}, but it makes progress"
            return
        self.failures += 1
        self.why = why

    def connection_refused(self, why: str) -> None:
        """Nobody listens there: no reason to wait for a third proof."""
        self._answers = 0
        self.failures += 1
        self.refused = True
        self.why = why

    def progressed(self, at_s: float) -> None:
        """It sent bytes, or its load report moved."""
        if at_s <= self.progress_s:
            return  # known already
        self.progress_s = at_s
        self.quiet_since_s = None
        self.stalled = False

    def look(self, now_s: float, unanswered: int, *, idle: bool, streaming: int = 0) -> bool:
        """Whether it has stalled just now: it holds requests, and nothing has moved for `stall_s`.

        An answered probe shows that its engine moves, unless its load report says that it is `idle`: then the requests
        without a first byte never reached the engine. Of those that are `streaming` alone a probe must be overdue too,
        as clients who read slowly make answers stand still. A stalled worker comes back through trials, as its probes
        may well answer.
        """
        if unanswered + streaming == 0 or self._config.stall_s == 0:
            self.quiet_since_s = None
            return False
        if self.quiet_since_s is None:
            self.quiet_since_s = now_s
        moved_s = self.progress_s
        if not unanswered:
            moved_s = max(moved_s, self._answer_s + self._config.interval_s)
        elif not idle:
            moved_s = max(moved_s, self._answer_s)
        quiet_s = now_s - max(self.quiet_since_s, moved_s)
        if self.stalled or quiet_s < self._config.stall_s:
            return False
        self.stalled = True
        held = f"{unanswered} requests wait" if unanswered else f"{streaming} answers stand still"
        self.why = f"{held} and nothing has moved for {quiet_s:.0f} s (health.stall_s)"
        self.breaker.trip(now_s, self.why)
        return True

    # -- what follows -------------------------------------------------------------------------------------------

    @property
    def answers_needed(self) -> int:
        """Answers in a row that bring it back: doubled with each fall while it flaps."""
        needed: int = self._config.answers_to_ready * 2 ** max(self._falls - 1, 0)
        return min(needed, max(MAX_ANSWERS, self._config.answers_to_ready))

    def verdict(self, state: WorkerState, now_s: float) -> tuple[WorkerState, str]:
        """The state that is true now and why, given the one it is in. Draining and gone are not judged here."""
        if state is WorkerState.STARTING:
            if self._answers:
                return WorkerState.READY, f"{self._config.path} answered"
            late = now_s - self.joined_s >= self._config.startup_grace_s
            why = f"no answer {self._config.startup_grace_s:g} s after it was added: {self.why}"
            return (WorkerState.DEGRADED, why) if late else (state, self.why)
        bad = self._bad()
        if state is WorkerState.READY:
            return (state, "") if bad is None else (WorkerState.DEGRADED, bad)
        if bad is not None:
            return state, bad
        if self._answers >= self.answers_needed:
            return WorkerState.READY, f"{self._config.path} answered {self._answers} times in a row"
        return state, f"{self._config.path} answered {self._answers} of {self.answers_needed} times"

    def fell(self, now_s: float) -> None:
        """It was ready and is degraded now."""
        self._falls = self._falls + 1 if now_s - self._fell_s < FLAP_WINDOW_S else 1
        self._fell_s = now_s
        self._answers = 0

    def _bad(self) -> str | None:
        if self.refused:
            return self.why
        if self.failures >= self._config.failures_to_degrade:
            return f"{self.failures} failed probes, last: {self.why}"
        if not self.breaker.closed:
            return f"breaker {self.breaker.state.value}: {self.breaker.last}"
        return None
