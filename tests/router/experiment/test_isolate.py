"""Arms get workers of their own where that is fair, take turns where it is not, and the reason is said."""

from __future__ import annotations

import pytest

from router.errors import ConfigError
from router.experiment.config import Isolation
from router.experiment.isolate import plan
from router.types import WorkerId

FLEET = [WorkerId(f"w{i}") for i in range(1, 13)]


@pytest.mark.parametrize(
    ("workers", "shares", "sizes"),
    [(2, [0.5, 0.5], [1, 1]), (4, [0.5, 0.5], [2, 2]), (4, [0.75, 0.25], [3, 1]), (6, [1 / 3] * 3, [2, 2, 2])],
)
def test_a_fleet_is_split_in_proportion_and_every_worker_is_in_one_arm(
    workers: int, shares: list[float], sizes: list[int]
) -> None:
    made = plan(Isolation.AUTO, FLEET[:workers], shares)

    assert made.isolation is Isolation.SPLIT
    assert made.workers is not None
    assert [len(own) for own in made.workers] == sizes
    assert frozenset().union(*made.workers) == set(FLEET[:workers])
    assert "share their KV caches" in made.why


def test_neighbours_go_to_different_arms() -> None:
    made = plan(Isolation.SPLIT, FLEET[:4], [0.5, 0.5])

    assert made.workers == ({"w1", "w3"}, {"w2", "w4"})


@pytest.mark.parametrize(
    ("workers", "shares", "why"),
    [
        (1, [0.5, 0.5], "1 worker cannot serve 2 arms"),
        (3, [0.5, 0.5], "cannot be divided|more load"),
        (2, [1 / 3] * 3, "2 workers cannot serve 3 arms"),
        (4, [1 / 3] * 3, "cannot be divided|more load"),
    ],
)
def test_arms_alternate_where_splitting_would_be_unfair_and_asking_for_it_is_refused(
    workers: int, shares: list[float], why: str
) -> None:
    made = plan(Isolation.AUTO, FLEET[:workers], shares)

    assert made.isolation is Isolation.ALTERNATE
    with pytest.raises(ConfigError, match=why):
        plan(Isolation.SPLIT, FLEET[:workers], shares)


def test_unequal_shares_cannot_alternate() -> None:
    with pytest.raises(ConfigError, match=r"equal turns.*cannot be divided in proportion to the shares 0\.9 and 0\.1"):
        plan(Isolation.AUTO, FLEET[:4], [0.9, 0.1])
    with pytest.raises(ConfigError, match="equal turns"):
        plan(Isolation.ALTERNATE, FLEET[:4], [0.75, 0.25])


def test_without_workers_there_is_no_experiment() -> None:
    with pytest.raises(ConfigError, match="no worker"):
        plan(Isolation.AUTO, [], [0.5, 0.5])
