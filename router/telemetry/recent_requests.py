"""The last requests, bounded: what was decided, how every worker was weighed, and what then happened.

Written by request.explain (decided) and as a sink of Outcomes (ended). Read by /explain and the dashboard. Not here:
how to weigh (policies), how it looks (dashboard, request.explain).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from router.compiled import interpreted
from router.knob import knob, require
from router.records import Outcome
from router.telemetry.weighing import Weighing
from router.types import RequestId


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainConfig:
    keep: int = knob(1000, "requests that can be explained afterwards")
    keep_blocks: int = knob(200_000, "prompt blocks those requests may hold together; about 40 bytes each")
    weigh_per_s: float = knob(
        20.0, "requests a second whose candidates are written down unasked; those that ask by header always are"
    )

    def __post_init__(self) -> None:
        require(self.keep >= 1, "must be at least 1")
        require(self.keep_blocks >= 0, "must not be negative")
        require(self.weigh_per_s >= 0, "must not be negative")


class Entry:
    """One request: its decisions (one per attempt that was weighed) and, once it has ended, its outcome."""

    __slots__ = ("outcome", "request_id", "weighings")

    def __init__(self, request_id: RequestId) -> None:
        self.request_id = request_id
        self.weighings: Sequence[Weighing] = ()
        self.outcome: Outcome | None = None


class RecentRequests:
    """A bounded store by request id, oldest first. Of two requests with one id the later is kept."""

    def __init__(self, config: ExplainConfig) -> None:
        self._keep = config.keep
        self._keep_blocks = config.keep_blocks
        self._entries: OrderedDict[RequestId, Entry] = OrderedDict()
        self._lent: dict[RequestId, Entry] = {}
        self._blocks = 0

    def decided(self, request_id: RequestId, weighing: Weighing) -> None:
        """Note how one attempt of a request was decided."""
        entry = self._entries.get(request_id)
        if entry is None or entry.outcome is not None:
            self._drop(request_id)
            entry = self._entries[request_id] = Entry(request_id)
        entry.weighings = (*entry.weighings, weighing)
        self._bound()

    def ended(self, outcome: Outcome) -> None:
        """Sink of Outcomes. O(1)."""
        entries, name, key = self._entries, outcome.request_id, outcome.key
        entry = entries.get(name)
        if entry is None or entry.outcome is not None:
            if entry is not None:
                self._drop(name)
            entry = entries[name] = Entry(name)
        entry.outcome = outcome
        if key is not None:
            self._blocks += len(key.blocks)
        if len(entries) > self._keep or self._blocks > self._keep_blocks:
            self._bound()

    def borrow(self, lent: Iterable[Entry], most: int) -> None:
        """What other processes of this router keep, to be shown beside what is kept here; so many at most, with as
        many blocks as may be kept here.
        """
        kept, blocks = self._lent, 0
        for entry in lent:
            kept.pop(entry.request_id, None)
            kept[entry.request_id] = entry
        for count, (name, entry) in enumerate(reversed(list(kept.items()))):
            blocks += _blocks(entry)
            if count >= most or blocks > self._keep_blocks:
                del kept[name]

    def find(self, request_id: str) -> Entry | None:
        return self.own(request_id) or self._lent.get(RequestId(request_id))

    def own(self, request_id: str) -> Entry | None:
        """One that was not borrowed."""
        return self._entries.get(RequestId(request_id))

    def latest_own(self, count: int) -> list[Entry]:
        """At most `count` entries that have ended and were not borrowed, newest first."""
        return list(islice((entry for entry in reversed(self._entries.values()) if entry.outcome), count))

    def latest(self, count: int) -> list[Entry]:
        """At most `count` entries that have ended, newest first."""
        if not self._lent:
            return self.latest_own(count)
        return sorted([*self.latest_own(count), *self._lent.values()], key=_ended_s, reverse=True)[:count]

    def outcomes(self) -> Iterator[Outcome]:
        """Every outcome that is kept, oldest first."""
        entries: Iterable[Entry] = self._entries.values()
        if self._lent:
            entries = sorted([*entries, *self._lent.values()], key=_ended_s)
        return (entry.outcome for entry in entries if entry.outcome is not None)

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, request_id: RequestId) -> None:
        gone = self._entries.pop(request_id, None)
        if gone is not None:
            self._blocks -= _blocks(gone)

    def _bound(self) -> None:
        entries = self._entries
        while len(entries) > self._keep or (self._blocks > self._keep_blocks and len(entries) > 1):
            _, gone = entries.popitem(last=False)
            self._blocks -= _blocks(gone)


def _blocks(entry: Entry) -> int:
    """Of its prompt, known once it has ended."""
    key = None if entry.outcome is None else entry.outcome.key
    return 0 if key is None else len(key.blocks)


def _ended_s(entry: Entry) -> float:
    outcome = entry.outcome
    return 0.0 if outcome is None else outcome.at_s + outcome.e2e_s
