"""The last requests, bounded: what was decided, how every worker was weighed, and what then happened.

Written by request.explain (decided) and as a sink of Outcomes (ended). Read by /explain and the dashboard. Not here:
how to weigh (policies), how it looks (dashboard, request.explain).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from router.knob import knob, require
from router.types import ArmName, Candidate, Decision, Outcome, RequestId, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainConfig:
    keep: int = knob(1000, "requests that can be explained afterwards")
    keep_blocks: int = knob(200_000, "prompt blocks those requests may hold together; about 40 bytes each")
    weigh_per_s: float = knob(
        50.0, "requests a second whose candidates are written down unasked; those that ask by header always are"
    )

    def __post_init__(self) -> None:
        require(self.keep >= 1, "must be at least 1")
        require(self.keep_blocks >= 0, "must not be negative")
        require(self.weigh_per_s >= 0, "must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """One worker as it was when the decision was made. `candidate` is None where the policy weighs nothing."""

    worker: WorkerId
    in_flight: int
    waiting: int | None
    candidate: Candidate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """One decision and every worker that could have been chosen."""

    policy: str
    arm: ArmName | None
    decision: Decision
    workers: tuple[Weighed, ...]


class Entry:
    """One request: its decisions (one per attempt that was weighed) and, once it has ended, its outcome."""

    __slots__ = ("outcome", "request_id", "weighings")

    def __init__(self, request_id: RequestId) -> None:
        self.request_id = request_id
        self.weighings: list[Weighing] = []
        self.outcome: Outcome | None = None


class RecentRequests:
    """A bounded store by request id, oldest first. Of two requests with one id the later is kept."""

    def __init__(self, config: ExplainConfig) -> None:
        self._config = config
        self._entries: OrderedDict[RequestId, Entry] = OrderedDict()
        self._blocks = 0

    def decided(self, request_id: RequestId, weighing: Weighing) -> None:
        """Note how one attempt of a request was decided."""
        entry = self._entries.get(request_id)
        if entry is None or entry.outcome is not None:
            self._drop(request_id)
            entry = self._entries[request_id] = Entry(request_id)
        entry.weighings.append(weighing)
        self._bound()

    def ended(self, outcome: Outcome) -> None:
        """Sink of Outcomes. O(1)."""
        entry = self._entries.get(outcome.request_id)
        if entry is None or entry.outcome is not None:
            self._drop(outcome.request_id)
            entry = self._entries[outcome.request_id] = Entry(outcome.request_id)
        entry.outcome = outcome
        self._blocks += _blocks(outcome)
        self._bound()

    def find(self, request_id: str) -> Entry | None:
        return self._entries.get(RequestId(request_id))

    def latest(self, count: int) -> list[Entry]:
        """At most `count` entries that have ended, newest first."""
        return list(islice((entry for entry in reversed(self._entries.values()) if entry.outcome), count))

    def outcomes(self) -> Iterator[Outcome]:
        """Every outcome that is kept, oldest first."""
        return (entry.outcome for entry in self._entries.values() if entry.outcome is not None)

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, request_id: RequestId) -> None:
        gone = self._entries.pop(request_id, None)
        if gone is not None and gone.outcome is not None:
            self._blocks -= _blocks(gone.outcome)

    def _bound(self) -> None:
        while len(self._entries) > self._config.keep or (
            self._blocks > self._config.keep_blocks and len(self._entries) > 1
        ):
            self._drop(next(iter(self._entries)))


def _blocks(outcome: Outcome) -> int:
    return 0 if outcome.key is None else len(outcome.key.blocks)
