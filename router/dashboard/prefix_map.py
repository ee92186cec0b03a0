"""Where prefixes live: the prompts of recent requests as a tree of shared prefixes, and which worker holds how much.

Pure. Because block hashes are chained, two prompts agree on block i exactly when they agree on all blocks before it, so
shared lengths are found by bisection. Called by views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from router.records import Outcome
from router.types import WorkerId

MAX_NODES = 28


@dataclass(slots=True)
class Branch:
    """Blocks `start` to `end` (half open) that `outcomes` have in common, and how they go on.

    `requests` went through it; those that no kept child continues end here or go their own ways.
    """

    start: int
    end: int
    outcomes: list[Outcome]
    children: list[Branch] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.outcomes)

    @property
    def blocks(self) -> Sequence[int]:
        """The prompt up to the end of this branch."""
        key = self.outcomes[0].key
        assert key is not None
        return key.blocks[: self.end]


def hot_branches(outcomes: Sequence[Outcome], most: int = MAX_NODES) -> list[Branch]:
    """The roots of the tree, at most `most` branches in all, those with the most requests. A branch has two or more."""
    keyed = [outcome for outcome in outcomes if outcome.key is not None and outcome.key.blocks]
    roots = _split(keyed, 0)
    ranked = sorted(walk(roots), key=lambda branch: (-branch.requests, branch.start))
    kept = {id(branch) for branch in ranked[:most]}
    return _pruned(roots, kept)


def walk(branches: Sequence[Branch]) -> Iterator[Branch]:
    """Every branch, parents first."""
    for branch in branches:
        yield branch
        yield from walk(branch.children)


def served_share(branch: Branch) -> dict[WorkerId, float]:
    """1 for every worker that served a request with this whole prefix: it held it then."""
    return {outcome.worker: 1.0 for outcome in branch.outcomes if outcome.worker is not None and outcome.ok}


def _split(outcomes: list[Outcome], start: int) -> list[Branch]:
    """Branches of prompts that agree up to `start`; those with one request only are left out."""
    parts: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        key = outcome.key
        if key is not None and len(key.blocks) > start:
            parts.setdefault(key.blocks[start], []).append(outcome)
    branches = []
    for part in parts.values():
        if len(part) < 2:
            continue
        end = min(_shared(part[0], other) for other in part[1:])
        branches.append(Branch(start, end, part, _split(part, end)))
    return sorted(branches, key=lambda branch: -branch.requests)


def _shared(one: Outcome, other: Outcome) -> int:
    """Leading blocks in common, by bisection."""
    assert one.key is not None
    assert other.key is not None
    a, b = one.key.blocks, other.key.blocks
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[middle - 1] == b[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low


def _pruned(branches: list[Branch], kept: set[int]) -> list[Branch]:
    for branch in branches:
        branch.children = _pruned(branch.children, kept)
    return [branch for branch in branches if id(branch) in kept]
