"""Metrics of all processes as one: sums of what each counts alone, and counters that never fall."""

from __future__ import annotations

from random import Random

from outcomes import outcome
from router.admission.admission import Admission, AdmissionConfig
from router.admission.held_queue import HoldConfig
from router.admission.hold import Hold
from router.admission.retry import RetryBudget, RetryConfig
from router.fleet.registry import Registry
from router.processes.totals import Totals
from router.telemetry.backlog import Backlog
from router.telemetry.guard_metrics import GuardCollector
from router.telemetry.metrics import Metrics
from router.telemetry.traffic import Traffic


def process(refused: int, *, budget: int = 10, served: int = 0, number: int = 0) -> Totals:
    """One process that refused so many requests and has so many retries left."""
    registry = Registry(lambda: 0.0)
    registry.add("http://127.0.0.1:1", "one")
    admission = Admission(AdmissionConfig(), lambda: 0.0)
    admission.refused["queue_full"] = refused
    retries = RetryBudget(RetryConfig(budget_floor=budget), Random(0))
    guards = GuardCollector(registry, admission, retries, Hold(HoldConfig(), lambda: 0.0))
    backlog = Backlog()
    made = Totals(Metrics(registry, backlog, lambda: 0.0, dict, dict, guards), Traffic(lambda: 0.0, backlog), number)
    for index in range(served):
        backlog.add(outcome(str(index)))
    return made


def shown(totals: Totals, name: str) -> float:
    [line] = [line for line in totals.render().decode().splitlines() if line.startswith(name)]
    return float(line.rpartition(" ")[2])


def test_what_each_counts_alone_is_added_up_and_what_all_know_is_not() -> None:
    here, there = process(2), process(3, budget=20)
    here.heard(1, there.own())

    assert shown(here, "trieway_queue_refused_total") == 5
    assert shown(here, "trieway_retry_budget_requests") == 30
    assert shown(here, "trieway_queue_room_requests") == 1024
    assert shown(here, 'trieway_worker_state{state="starting"') == 1


def test_counters_of_a_process_that_ended_stay_and_its_gauges_go() -> None:
    here = process(2)
    here.heard(1, process(3, budget=20).own())
    here.gone(1)
    here.heard(1, process(0, budget=20).own())

    assert shown(here, "trieway_queue_refused_total") == 5
    assert shown(here, "trieway_retry_budget_requests") == 30


def test_requests_are_counted_where_they_were_served_and_stay_when_that_process_ends() -> None:
    here = process(0, served=2)
    here.heard(1, process(0, served=3, number=1).own())
    whole = shown(here, "trieway_requests_total"), shown(here, "trieway_ttft_seconds_count")
    here.gone(1)
    here.heard(1, process(0, served=4, number=1).own())
    after = shown(here, "trieway_requests_total"), shown(here, "trieway_ttft_seconds_count")

    assert whole == (5, 5)
    assert after == (9, 9)
    assert shown(here, 'trieway_process_requests_total{process="0"}') == 2
    assert shown(here, 'trieway_process_requests_total{process="1"}') == 7


def test_a_process_that_joins_goes_on_with_the_totals() -> None:
    here = process(2, served=1)
    here.heard(1, process(3, served=2, number=1).own())
    here.gone(1)
    here.heard(2, process(0, served=4, number=2).own())
    joined = process(0, number=1)
    joined.load(here.dump())

    assert shown(joined, "trieway_queue_refused_total") == 5
    assert shown(joined, "trieway_requests_total") == 7
    assert [shown(joined, f'trieway_process_requests_total{{process="{number}"}}') for number in range(3)] == [1, 2, 4]
