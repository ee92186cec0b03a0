"""A request that a worker does not count any more is found lost; one that it may still have is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.call_off import Waiting
from router.fleet.lost import LostRequests
from router.types import LoadReport


def requests(*names: str) -> list[Waiting]:
    """Anything with an identity will do."""
    return cast(list[Waiting], list(names))


def report(at_s: float, held: int, *, waiting: int = 0) -> LoadReport:
    return LoadReport(
        at_s=at_s, running=held - waiting, waiting=waiting, waiting_uncached_tokens=0, used_tokens=0,
        capacity_tokens=1000, max_running=None, token_usage=None,
    )  # fmt: skip


def found(steps: Iterable[tuple[float, int, list[Waiting]]], patience_s: float = 10.0) -> list[Waiting]:
    watched, lost = LostRequests(patience_s), []
    for at_s, held, unanswered in steps:
        lost += watched.reported(report(at_s, held), unanswered, moved=False)
    return lost


def test_what_an_idle_worker_owes_for_long_is_lost_and_what_came_later_is_not_yet() -> None:
    steps = [(0.0, 0, requests("a")), (5.0, 0, requests("a", "b")), (10.0, 0, requests("a", "b"))]

    assert found(steps) == requests("a")


def test_a_busy_worker_gives_itself_away_by_one_report_that_counts_too_few() -> None:
    held = [9, 1, 9]
    steps = [(at_s, count, requests("a", "b")) for at_s, count in zip((0.0, 5.0, 10.0), held, strict=True)]

    assert found(steps) == requests("a")


@pytest.mark.parametrize("held", [1, 5])
def test_a_long_wait_in_a_queue_that_is_reported_is_no_loss(held: int) -> None:
    steps = [(float(at_s), held, requests("a")) for at_s in range(0, 1000, 5)]

    assert found(steps) == []


def doubts(steps: Iterable[tuple[float, int, list[Waiting]]]) -> list[bool]:
    watched, found_ = LostRequests(60.0), []
    for at_s, held, unanswered in steps:
        watched.reported(report(at_s, held), unanswered, moved=False)
        found_.append(watched.doubtful)
    return found_


def test_an_idle_worker_that_owes_one_request_a_first_byte_is_in_doubt_until_it_answers_or_works() -> None:
    owing = requests("a", "b")
    steps = [(0.0, 0, owing), (1.0, 0, owing), (2.0, 0, owing), (3.0, 1, owing), (4.0, 0, owing)]
    steps.append((6.0, 0, requests("b")))

    assert doubts(steps) == [False, False, True, False, False, False]


def test_requests_on_their_way_to_an_idle_worker_raise_no_doubt() -> None:
    assert not any(doubts((float(at_s), 0, requests(f"{at_s}")) for at_s in range(20)))


def test_requests_that_come_and_are_answered_between_reports_are_never_lost() -> None:
    steps = [(float(at_s), 0, requests(f"{at_s}a", f"{at_s}b")) for at_s in range(100)]

    assert found(steps) == []


def test_a_long_prompt_that_no_number_counts_is_not_lost_while_the_tokens_in_use_grow() -> None:
    """SGLang reads it in chunks, and counts it neither as running nor as waiting meanwhile."""
    watched, long = LostRequests(10.0), requests("a million tokens")
    for at_s in range(300):
        assert not watched.reported(report(float(at_s), 0), long, moved=True)
        assert not watched.doubtful

    lost = [watched.reported(report(float(at_s), 0), long, moved=False) for at_s in range(300, 311)]
    assert long in lost


def test_a_new_span_begins_once_all_that_was_watched_is_answered() -> None:
    steps = [(0.0, 1, requests("quick")), (1.0, 0, requests("gone")), (11.0, 0, requests("gone"))]

    assert found(steps) == requests("gone")


def test_a_lost_request_that_comes_within_a_span_is_found_at_the_end_of_the_next() -> None:
    steps = [(0.0, 1, requests("slow"))]
    steps += [(float(at_s), 1, requests("slow", "gone")) for at_s in range(1, 20)]
    assert found(steps) == []

    steps.append((20.0, 1, requests("slow", "gone")))
    assert len(found(steps)) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=60
    )  # requests that arrive and that are answered before a report, and what others send there
)
def test_nothing_is_called_lost_while_the_worker_counts_all_it_was_sent(moves: list[tuple[int, int, int]]) -> None:
    watched, waiting, number = LostRequests(3.0), cast(list[Waiting], []), 0
    for at_s, (arrive, answered, others) in enumerate(moves):
        waiting += requests(*(f"{number + i}" for i in range(arrive)))
        number += arrive
        del waiting[:answered]
        assert not watched.reported(report(float(at_s), len(waiting) + others), waiting, moved=False)
