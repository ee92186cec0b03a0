"""What a sweep has to show: targets of a plan, each a bound on one figure in some cells, and whether it was met.

A target compares a policy with another, with the best of the peers, or with the pooled cache. A bound of 1.0 is kept
while the difference is noise (replay_sweep_table.py); any other bound is taken as it is. Called by
replay_sweep_command.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean

import msgspec

from loadtests.replay_sweep import Line, Plan, Target
from loadtests.replay_sweep_table import Key, best_peer, by_cell, mean, ratio

BEST_PEER, POOLED = "best_peer", "pooled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`value` is the ratio to the other's figure, or how much of the pooled cache's hit ratio is missing."""

    cell: str
    met: bool
    value: float


def judged(target: Target, policy: str, lines: Sequence[Line], peers: Sequence[str]) -> list[Verdict]:
    """One verdict for every cell that the target is about and that both sides have figures of."""
    found = (
        _verdict(target, key, rows, policy, [peer for peer in peers if peer != policy])
        for key, rows in by_cell(lines).items()
        if policy in rows and _about(target, rows[policy])
    )
    return [one for one in found if one is not None]


def said(plan: Plan, lines: Sequence[Line]) -> Iterator[str]:
    """A sentence per target and policy, and the cells where it was missed, worst first."""
    for policy in plan.judged or plan.policies:
        for target in plan.targets:
            verdicts = judged(target, policy, lines, plan.peers)
            missed = sorted((one for one in verdicts if not one.met), key=lambda one: -one.value)
            word = "NO CELL" if not verdicts else "missed " if missed else "met    "
            yield f"{word} {policy}: {target.name}: {len(verdicts) - len(missed)} of {len(verdicts)} cells"
            for one in missed:
                yield f"          {one.value:.3f} in {one.cell}"


def _about(target: Target, mine: Sequence[Line]) -> bool:
    cell = mine[0].cell
    busy = fmean(line.ideal_busy_ratio for line in mine)
    named = not target.traces or any(name in PurePath(cell.trace).name for name in target.traces)
    return named and target.busy_from - 1e-6 <= busy <= target.busy_to + 1e-6


def _verdict(
    target: Target, key: Key, rows: dict[str, list[Line]], policy: str, peers: Sequence[str]
) -> Verdict | None:
    mine = rows[policy]

    def quantity(row: msgspec.Struct) -> float | None:
        value: float | None = getattr(row, target.figure)
        return value

    name = f"{PurePath(key[0]).name.split('.')[0]}, {key[1]} x {key[2] // 1000}k, {key[3]}"
    if target.against == POOLED:
        here = mean(mine, quantity)
        if here is None:
            return None
        missing = fmean(line.ideal_hit_ratio for line in mine) - here
        return Verdict(cell=name, met=missing <= target.at_most, value=missing)
    other = best_peer(rows, peers, quantity) if target.against == BEST_PEER else target.against
    found = ratio(mine, rows[other], quantity) if other is not None and other in rows else None
    if found is None:
        return None
    met = found.mark != ">" if target.at_most == 1.0 else found.value <= target.at_most
    return Verdict(cell=name, met=met, value=found.value)
