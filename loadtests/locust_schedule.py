"""What an open-loop Locust test sends and when: sessions of a trace or a workload, shared out over Locust's processes.

Pure; read by every process from the same options, so that only an index has to travel. Called by locust_run.py and
locust_arrivals.py. Not here: waiting and sending.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from loadtests.block_text import BlockTexts
from loadtests.drive import sessions_of
from loadtests.load_request import LoadRequest
from loadtests.trace_file import TraceError
from loadtests.traces import BlockRequest, Trace, read_trace
from loadtests.workloads import WORKLOADS, generate

Turn: TypeAlias = LoadRequest | BlockRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of the sessions a process plays: every `of`-th, from `index` on."""

    index: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Turns of one session, the first due `starts_s` after the start of the test."""

    name: str
    starts_s: float
    turns: Sequence[Turn]


class Schedule:
    """All sessions in order of arrival. `rate` multiplies how often they arrive and leaves pauses alone; `think_scale`
    multiplies the pauses.
    """

    def __init__(self, requests: Trace, *, rate: float = 1.0, think_scale: float = 1.0, seed: int = 0) -> None:
        """Raises ValueError when there are none."""
        if not requests:
            raise ValueError("an open-loop test needs a request")
        turns_of_all: list[Turn] = list(requests)
        sessions = sorted(sessions_of(turns_of_all), key=lambda session: session[1][0].arrival_s)
        first_s = sessions[0][1][0].arrival_s
        self._rate = rate
        self._think_scale = think_scale
        self._first_s = first_s
        self._texts = BlockTexts(seed)
        self.requests = len(requests)
        self.sessions = [
            Session(name=name, starts_s=(turns[0].arrival_s - first_s) / rate, turns=turns) for name, turns in sessions
        ]

    @property
    def last_start_s(self) -> float:
        return self.sessions[-1].starts_s

    def share(self, share: Share) -> Iterator[Session]:
        """The sessions of one process. Shares do not overlap, and together they are all."""
        return iter(self.sessions[share.index :: share.of])

    def due_s(self, turn: Turn, ended_s: float) -> float:
        """When a later turn of a session is due, the one before having ended at `ended_s`."""
        return max((turn.arrival_s - self._first_s) / self._rate, ended_s + turn.gap_s * self._think_scale)

    def call(self, turn: Turn, session_name: str) -> LoadRequest:
        """The turn with its text."""
        return turn if isinstance(turn, LoadRequest) else self._texts.load_request(turn, session_name)


def schedule_of(options: Namespace) -> Schedule:
    """The schedule that Locust's command line asks for. Raises TraceError."""
    if options.trace:
        path = Path(options.trace)
        if not path.is_file():
            raise TraceError(f"{path} does not exist; give --trace a file that every Locust process can read")
        return _schedule(read_trace(path, limit=options.limit or None), options)
    if options.workload not in WORKLOADS:
        raise TraceError(f"there is no workload {options.workload!r}; --workload takes {', '.join(WORKLOADS)}")
    if options.sessions < 1 or options.sessions_per_s <= 0:
        raise TraceError("--sessions and --sessions-per-s must be above zero")
    kind: Any = WORKLOADS[options.workload]  # every workload is a record with a seed
    made = generate(kind(seed=options.seed), sessions=options.sessions, sessions_per_s=options.sessions_per_s)
    return _schedule(made, options)


def _schedule(requests: Trace, options: Namespace) -> Schedule:
    return Schedule(requests, rate=options.rate, think_scale=options.think_scale, seed=options.seed)
