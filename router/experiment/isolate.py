"""Keeps arms apart: each with workers of its own, or each at its own times. Pure.

Arms that share workers share their KV caches: a prefix that one arm placed is a hit for the other, and a queue that
one arm built slows the other. So an experiment splits the fleet, or lets arms take turns and forgets the start of each.
Splitting is preferred: sessions stay in one arm. It needs workers in proportion to the shares. Called by live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.errors import ConfigError
from router.experiment.config import Isolation
from router.types import WorkerId

MAX_IMBALANCE = 0.1
"""Requests per worker may differ between arms by this share: unequal load alone changes TTFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`workers` per arm when the fleet is split, None when arms alternate. `why` is one sentence for people."""

    workers: tuple[frozenset[WorkerId], ...] | None
    why: str

    @property
    def isolation(self) -> Isolation:
        return Isolation.ALTERNATE if self.workers is None else Isolation.SPLIT


def plan(wanted: Isolation, workers: Sequence[WorkerId], shares: Sequence[float]) -> Plan:
    """How arms with these shares are kept apart on these workers. Raises ConfigError where `wanted` is impossible."""
    if not workers:
        raise ConfigError("There is no worker, so there is nothing to compare.", param="experiment")
    counts, obstacle = _counts(len(workers), shares)
    if wanted is Isolation.SPLIT and obstacle:
        raise ConfigError(f"The fleet cannot be split: {obstacle} Or alternate in time.", param="experiment.isolation")
    equal = max(shares) - min(shares) < MAX_IMBALANCE * max(shares)
    if wanted is Isolation.ALTERNATE or obstacle:
        if not equal:
            raise ConfigError(
                "Arms that alternate have equal turns: give no shares, or equal ones."
                + (f" (Splitting the fleet is impossible: {obstacle})" if obstacle else ""),
                param="experiment.arms",
            )
        why = obstacle or "it was asked for."
        return Plan(workers=None, why=f"Arms take turns in time, because {why[0].lower()}{why[1:]}")
    return Plan(
        workers=_dealt(workers, counts),
        why="Each arm has workers of its own, because arms that share workers share their KV caches and queues.",
    )


def _counts(workers: int, shares: Sequence[float]) -> tuple[list[int], str | None]:
    """Workers per arm, and what speaks against splitting, if anything does."""
    counts = [round(workers * share) for share in shares]
    if workers < len(shares):
        return counts, f"{workers} worker{'s' * (workers != 1)} cannot serve {len(shares)} arms separately."
    if sum(counts) != workers or min(counts) == 0:
        return counts, f"{workers} workers cannot be divided in proportion to the shares {_listed(shares)}."
    loads = [share / count for share, count in zip(shares, counts, strict=True)]
    if max(loads) > min(loads) * (1 + MAX_IMBALANCE):
        excess = 100 * (max(loads) / min(loads) - 1)
        return counts, f"With {_listed(counts)} workers one arm's would carry {excess:.0f} % more load than another's."
    return counts, None


def _dealt(workers: Sequence[WorkerId], counts: list[int]) -> tuple[frozenset[WorkerId], ...]:
    """Workers in turn, so that neighbours (one machine, often) end up in different arms."""
    hands: list[list[WorkerId]] = [[] for _ in counts]
    turn = 0
    for worker in workers:
        while len(hands[turn % len(hands)]) >= counts[turn % len(hands)]:
            turn += 1
        hands[turn % len(hands)].append(worker)
        turn += 1
    return tuple(frozenset(hand) for hand in hands)


def _listed(values: Sequence[float]) -> str:
    return " and ".join(f"{value:g}" for value in values)
