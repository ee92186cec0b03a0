"""What goes wrong when: a seeded schedule of faults over a fleet. Pure; the same seed makes the same schedule.

Never more than `MOST_AT_ONCE` workers are in trouble at a time: what is asked of the router is possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

MOST_AT_ONCE = 3
WITH_RELAY = 2
"""So many workers, the first ones, stand behind a relay, which can be held: a partition."""
FAULTS = (
    "hang", "reset", "cut", "truncate", "slow_bytes", "error", "stall_health", "refuse", "wrong_length", "stale_load",
    "flush_cache", "restart",
)  # fmt: skip
"""What a simulated worker does to itself when it is asked to."""
FLEET_KINDS = ("add", "router_restart")
"""What concerns no worker of the fleet in particular."""
KINDS = (*FAULTS, "kill", "drain", "partition", *FLEET_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """`worker` is None for what concerns none."""

    at_s: float
    worker: int | None
    kind: str
    for_s: float
    fault: dict[str, Any] = field(default_factory=dict)


def schedule(seed: int, seconds: float, workers: int, kinds: tuple[str, ...] = KINDS) -> list[Trouble]:
    """Troubles in the order of their time, each kind in turn before any comes again; the last 15 % are quiet."""
    rng = Random(seed)
    found: list[Trouble] = []
    busy_until = [0.0] * workers
    at_s: float = 1.0
    left: list[str] = []
    while at_s < 0.85 * seconds:
        left = left or rng.sample(kinds, len(kinds))
        kind = left[-1]
        for_s = round(rng.uniform(1.0, max(1.5, min(6.0, seconds / 8))), 2)
        worker = None if kind in FLEET_KINDS else _worker(kind, [until_s <= at_s for until_s in busy_until], rng)
        if worker is not None or kind in FLEET_KINDS:
            left.pop()
            fault = _fault(kind, for_s, rng)
            found.append(Trouble(at_s=round(at_s, 2), worker=worker, kind=kind, for_s=for_s, fault=fault))
        if worker is not None:
            busy_until[worker] = at_s + for_s + 3.0
        at_s += rng.uniform(0.2, 1.0) * max(0.8, min(3.0, seconds / 20))
    return found


def _worker(kind: str, free: list[bool], rng: Random) -> int | None:
    """Whom it happens to; None while enough are in trouble, or all that it could happen to."""
    if sum(free) <= len(free) - MOST_AT_ONCE:
        return None
    able = [i for i, is_free in enumerate(free) if is_free and (kind != "partition" or i < WITH_RELAY)]
    return rng.choice(able) if able else None


def _fault(kind: str, for_s: float, rng: Random) -> dict[str, Any]:
    if kind not in FAULTS:
        return {}
    fault: dict[str, Any] = {"kind": kind, "for_s": for_s}  # one that refuses connections cannot be told to stop
    if kind in ("reset", "cut", "truncate"):
        fault |= {"after_events": rng.randint(0, 6), "probability": rng.choice((0.3, 1.0))}
    elif kind == "error":
        fault |= {"status": rng.choice((500, 502, 503, 429)), "probability": rng.choice((0.5, 1.0))}
    elif kind == "slow_bytes":
        fault |= {"bytes_per_s": 4000.0}
    return fault
