"""What a workload is: sessions of chat calls, each made from a seed. And how sessions become a timed run.

Every workload is a frozen record of its sizes with `session(rng, index)`; what sessions share is derived from the
record's `seed`, so that any process makes the same texts. Called by the registry, Locust users and scenarios.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Protocol

from loadtests.load_request import LoadRequest


class Workload(Protocol):
    """A kind of conversation."""

    @property
    def seed(self) -> int:
        """Decides every text."""
        ...

    def session(self, rng: Random, index: int) -> Sequence[LoadRequest]:
        """The turns of one session, `arrival_s` zero and `gap_s` the pause before each turn.

        `rng` decides what is this session's own; `index` names it.
        """
        ...


def rng_of(seed: int, *names: object) -> Random:
    """A Random that only these values decide, in every process alike."""
    return random.Random(":".join(map(str, (seed, *names))))


def session_of(workload: Workload, index: int) -> Sequence[LoadRequest]:
    """Session `index` of a workload, the same in every process."""
    return workload.session(rng_of(workload.seed, "session", index), index)


def generate(workload: Workload, *, sessions: int, sessions_per_s: float) -> list[LoadRequest]:
    """A run: `sessions` sessions that start in a Poisson process of that rate, in order of arrival."""
    rng = rng_of(workload.seed, "arrivals")
    arrival_s = 0.0
    requests: list[LoadRequest] = []
    for index in range(sessions):
        arrival_s += rng.expovariate(sessions_per_s)
        requests.extend(replace(turn, arrival_s=arrival_s) for turn in session_of(workload, index))
    return requests
