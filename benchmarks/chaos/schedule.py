"""What goes wrong when: a seeded schedule of faults over a fleet. Pure; the same seed makes the same schedule.

Never more than `MOST_AT_ONCE` workers are in trouble at a time: what is asked of the router is possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

MOST_AT_ONCE = 3
KINDS = (
    "kill", "hang", "reset", "cut", "truncate", "slow_bytes", "error", "stall_health", "refuse", "wrong_length",
    "stale_load", "flush_cache", "restart", "drain",
)  # fmt: skip
"""All but kill and drain are faults that a simulated worker makes itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    at_s: float
    worker: int
    kind: str
    for_s: float
    fault: dict[str, Any] = field(default_factory=dict)


def schedule(seed: int, seconds: float, workers: int, kinds: tuple[str, ...] = KINDS) -> list[Trouble]:
    """Troubles in the order of their time, each kind in turn before any comes again; the last 15 % are quiet."""
    rng = Random(seed)
    found: list[Trouble] = []
    busy_until = [0.0] * workers
    at_s, left = 1.0, []
    while at_s < 0.85 * seconds:
        left = left or rng.sample(kinds, len(kinds))
        free = [i for i, until_s in enumerate(busy_until) if until_s <= at_s]
        if len(free) > workers - MOST_AT_ONCE:
            worker, kind = rng.choice(free), left.pop()
            for_s = round(rng.uniform(1.0, max(1.5, min(6.0, seconds / 8))), 2)
            fault = _fault(kind, for_s, rng)
            found.append(Trouble(at_s=round(at_s, 2), worker=worker, kind=kind, for_s=for_s, fault=fault))
            busy_until[worker] = at_s + for_s + 3.0
        at_s += rng.uniform(0.2, 1.0) * max(0.8, min(3.0, seconds / 20))
    return found


def _fault(kind: str, for_s: float, rng: Random) -> dict[str, Any]:
    if kind in ("kill", "drain"):
        return {}
    fault: dict[str, Any] = {"kind": kind, "for_s": for_s}  # one that refuses connections cannot be told to stop
    if kind in ("reset", "cut", "truncate"):
        fault |= {"after_events": rng.randint(0, 6), "probability": rng.choice((0.3, 1.0))}
    elif kind == "error":
        fault |= {"status": rng.choice((500, 502, 503, 429)), "probability": rng.choice((0.5, 1.0))}
    elif kind == "slow_bytes":
        fault |= {"bytes_per_s": 4000.0}
    return fault
