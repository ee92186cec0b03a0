"""A workload's calls as files: one that `sglang.bench_serving` reads, and a chat trace with the same calls and times.

Each call stands alone, session after session. Arrivals are drawn as bench_serving 0.5.21 draws them
(numpy's legacy generator, exponential pauses, the first call at once), so that a run of either tool with one rate and
seed sends the same calls at the same times. Called by export_command.py. Needs numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from loadtests.load_request import LoadRequest
from loadtests.workloads import Workload, generate


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedCall:
    """One call and when it leaves, in seconds from the first."""

    arrival_s: float
    request: LoadRequest


def timed_calls(workload: Workload, *, calls: int, calls_per_s: float, seed: int) -> Sequence[TimedCall]:
    """The first `calls` calls of a workload, session after session, at times that a rate and a seed decide."""
    made = generate(workload, sessions=calls, sessions_per_s=1.0)[:calls]  # a session has at least one call
    pauses = np.random.RandomState(seed).exponential(1 / calls_per_s, size=calls - 1)
    arrivals = [0.0, *np.cumsum(pauses).tolist()]
    return [TimedCall(arrival_s=at_s, request=one) for at_s, one in zip(arrivals, made, strict=True)]


def write_openai(path: Path, calls: Sequence[TimedCall]) -> None:
    """JSON lines for `bench_serving --dataset-name openai`. Raises OSError."""
    _write(path, (_openai(one.request) for one in calls))


def write_trace(path: Path, calls: Sequence[TimedCall]) -> None:
    """A chat trace for `trieway loadtest trace`. Raises OSError."""
    _write(path, (_trace_line(index, one) for index, one in enumerate(calls)))


def _openai(request: LoadRequest) -> dict[str, object]:
    tools = {} if request.tools is None else {"tools": request.tools}
    return {"messages": request.messages, "max_tokens": request.max_tokens, "temperature": 0.0, **tools}


def _trace_line(index: int, call: TimedCall) -> dict[str, object]:
    request = call.request
    return {
        "session_id": f"call-{index}",
        "turn": 0,
        "arrival_ms": round(call.arrival_s * 1000, 3),
        "messages": request.messages,
        "tools": request.tools,
        "expected_output_tokens": request.max_tokens,
        "workload": request.workload,
    }


def _write(path: Path, lines: Iterator[dict[str, object]]) -> None:
    with path.open("wb") as file:
        for line in lines:
            file.write(msgspec.json.encode(line) + b"\n")
