"""What TRACE means on the command line: a decision log, a trace in any format, or the name of a workload.

Called by replay_command.py and replay_sweep.py. Not here: formats (traces.py, decision_log_trace.py), workloads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.decision_log_trace import is_decision_log, logged_traffic, read_decision_log
from loadtests.replay_source import ReplayTraffic, traffic_of
from loadtests.trace_file import TraceError
from loadtests.traces import read_trace
from loadtests.workloads import WORKLOADS, generate

DEFAULT_SESSIONS = 200
"""Of a workload, where --limit does not say."""


def load_traffic(
    source: str,
    *,
    limit: int | None = None,
    tools: Path | None = None,
    wait: bool | None = None,
    seed: int = 0,
    sessions_per_s: float = 4.0,
) -> ReplayTraffic:
    """The traffic that a name on the command line means. Raises TraceError, which names file, line and field."""
    path = Path(source)
    if path.exists() and is_decision_log(path):
        return logged_traffic(read_decision_log(path, limit=limit), path.name)
    if not path.is_file() and source in WORKLOADS:
        kind: Any = WORKLOADS[source]  # a dataclass of sizes, all with defaults
        made = generate(kind(seed=seed), sessions=limit or DEFAULT_SESSIONS, sessions_per_s=sessions_per_s)
        return traffic_of(made, source)
    if not path.is_file():
        raise TraceError(f"{source}: no such file, and no workload of that name ({', '.join(sorted(WORKLOADS))})")
    return traffic_of(read_trace(path, limit=limit, tools=tools), path.name, wait_for_turns=wait)
