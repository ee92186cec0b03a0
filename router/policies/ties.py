"""The one way ties are broken: evenly, by the random source the policy was given. Pure arithmetic over lists."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def smallest(costs: Sequence[float], rng: Random) -> int:
    """Index of the smallest cost; among equals each is as likely as the other. `costs` is not empty."""
    best = min(costs)
    if costs.count(best) == 1:
        return costs.index(best)
    return rng.choice([index for index, cost in enumerate(costs) if cost == best])
