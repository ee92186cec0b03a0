"""What state follows from probes, progress and the breaker: busy is not dead, and nothing flaps."""

from __future__ import annotations

import pytest

from router.fleet.breaker import BreakerConfig
from router.fleet.state import WorkerState
from router.fleet.vitals import HealthConfig, Vitals

STARTING, READY, DEGRADED = WorkerState.STARTING, WorkerState.READY, WorkerState.DEGRADED


def vitals(**health: float) -> Vitals:
    return Vitals(HealthConfig(**{"stall_s": 60.0, "startup_grace_s": 100.0, **health}), BreakerConfig(), 0.0)  # type: ignore[arg-type]


def test_a_probe_that_fails_while_the_worker_moves_counts_for_nothing() -> None:
    busy, dead = vitals(), vitals()
    for each in (busy, dead):
        for began_s in (0.0, 25.0, 50.0, 75.0):
            if each is busy:
                each.progressed(began_s + 10)
            each.probe_failed(began_s, "ReadTimeout")

    assert busy.verdict(READY, 100.0)[0] is READY
    assert dead.verdict(READY, 100.0)[0] is DEGRADED


def test_two_failed_probes_are_forgotten_by_an_answered_one() -> None:
    found = vitals()
    for _ in range(2):
        found.probe_failed(0.0, "x")
    found.probe_answered(1.0)
    for _ in range(2):
        found.probe_failed(2.0, "x")

    assert found.verdict(READY, 3.0)[0] is READY


def test_one_refused_connection_is_enough() -> None:
    found = vitals()
    found.connection_refused("connection refused")

    assert found.verdict(READY, 0.0) == (DEGRADED, "connection refused")


def test_a_new_worker_is_starting_for_its_grace_and_degraded_after_it() -> None:
    found = vitals()
    found.connection_refused("connection refused")
    states = [found.verdict(STARTING, now_s)[0] for now_s in (1.0, 99.0, 100.0)]
    found.probe_answered(101.0)

    assert states == [STARTING, STARTING, DEGRADED]
    assert found.verdict(STARTING, 101.0)[0] is READY


def test_a_worker_that_comes_and_goes_must_answer_longer_each_time() -> None:
    found, needed = vitals(), []
    for fall in range(5):
        found.fell(10.0 * fall)
        needed.append(found.answers_needed)
    found.fell(1000.0)

    assert needed == [2, 4, 8, 8, 8]
    assert found.answers_needed == 2


def test_a_degraded_worker_is_ready_after_enough_answers_and_not_before() -> None:
    found = vitals()
    found.connection_refused("x")
    found.fell(0.0)
    states = []
    for now_s in (1.0, 2.0):
        found.probe_answered(now_s)
        states.append(found.verdict(DEGRADED, now_s)[0])

    assert states == [DEGRADED, READY]


def test_answered_probes_do_not_bring_back_a_worker_whose_breaker_is_open() -> None:
    found = vitals()
    for _ in range(5):
        found.breaker.failed(0.0, "answered 500")
    for now_s in range(9):
        found.probe_answered(now_s)

    state, why = found.verdict(READY, 9.0)
    assert (state, why) == (DEGRADED, "breaker open: answered 500")


@pytest.mark.parametrize("idle", [False, True])
def test_requests_that_wait_while_nothing_moves_are_a_stall(idle: bool) -> None:
    found = vitals()
    stalls = [found.look(now_s, 3, idle=idle) for now_s in (0.0, 30.0, 59.0, 60.0, 61.0)]

    assert stalls == [False, False, False, True, False]
    assert not found.breaker.closed


def test_a_long_prefill_is_no_stall_while_probes_answer() -> None:
    found = vitals()
    for now_s in range(0, 300, 20):
        found.probe_answered(now_s)
        assert not found.look(now_s, 1, idle=False)


def test_an_idle_worker_that_holds_requests_is_stalled_even_when_its_probes_answer() -> None:
    found = vitals()
    stalls = []
    for now_s in range(0, 80, 20):
        found.probe_answered(now_s)
        stalls.append(found.look(now_s, 1, idle=True))

    assert stalls == [False, False, False, True]


def test_answers_that_stand_still_are_a_stall_once_a_probe_is_overdue_as_well() -> None:
    """Nobody sends a new request to a worker that seems busy: without this only the probes' long timeout tells."""
    found = vitals(interval_s=5.0)
    found.probe_answered(10.0)
    stalls = [found.look(now_s, 0, idle=False, streaming=2) for now_s in (10.0, 60.0, 74.0, 75.0)]

    assert stalls == [False, False, False, True]
    assert "2 answers stand still" in found.why


@pytest.mark.parametrize("idle", [False, True])
def test_a_client_that_reads_slowly_makes_no_stall_of_a_worker_whose_probes_answer(idle: bool) -> None:
    """All of its answer is generated, so the worker is idle; nothing is read from it before the client takes more."""
    found = vitals()
    for now_s in range(0, 600, 10):
        found.probe_answered(now_s)
        assert not found.look(now_s + 9, 0, idle=idle, streaming=1)


def test_old_news_of_progress_is_no_progress() -> None:
    found = vitals()
    found.progressed(0.0)
    stalls = []
    for now_s in (1.0, 30.0, 61.0):
        found.progressed(0.0)
        stalls.append(found.look(now_s, 1, idle=True))

    assert stalls == [False, False, True]


def test_waiting_counts_from_when_there_is_something_to_wait_for() -> None:
    found = vitals()
    found.look(0.0, 0, idle=True)

    assert not found.look(1000.0, 1, idle=True)
    assert not found.look(1059.0, 1, idle=True)
    assert found.look(1060.0, 1, idle=True)
