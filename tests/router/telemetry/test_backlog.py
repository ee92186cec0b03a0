"""Outcomes that wait to be counted: nobody sees that they did, and there are never many."""

from __future__ import annotations

from collections.abc import Sequence

from outcomes import outcome
from router.records import Outcome
from router.telemetry.backlog import MOST, Backlog


def test_each_is_counted_once_in_order_and_by_every_counter() -> None:
    first: list[str] = []
    second: list[str] = []

    def into(seen: list[str]) -> None:
        def count(outcomes: Sequence[Outcome]) -> None:
            seen.extend(one.request_id for one in outcomes)

        backlog.counters.append(count)

    backlog = Backlog()
    into(first)
    into(second)
    for number in range(MOST + 2):
        backlog.add(outcome(f"r{number}"))
    counted_unasked = len(first)
    backlog.settle()
    backlog.settle()

    assert counted_unasked == MOST
    assert first == second == [f"r{number}" for number in range(MOST + 2)]
