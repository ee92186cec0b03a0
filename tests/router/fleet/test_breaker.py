"""The breaker: what opens it, what a trial does, and that waits grow."""

from __future__ import annotations

from router.fleet.breaker import Breaker, BreakerConfig, BreakerState

CONFIG = BreakerConfig(failures_in_a_row=3, open_s=2.0, trials_to_close=2, trial_timeout_s=10.0)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(CONFIG)
    for _ in range(3):
        breaker.failed(now_s, "why")
    return breaker


def test_failures_in_a_row_open_it_and_one_answer_between_does_not() -> None:
    breaker = Breaker(CONFIG)
    for happens in (breaker.failed, breaker.failed):
        happens(0.0, "why")
    breaker.answered()
    breaker.failed(0.0, "why")

    assert breaker.closed
    assert opened().state is BreakerState.OPEN


def test_half_of_the_last_requests_failing_opens_it_without_a_row() -> None:
    breaker = Breaker(CONFIG)
    for _ in range(5):
        breaker.answered()
        breaker.failed(0.0, "why")

    assert not breaker.closed


def test_a_trial_is_due_after_the_wait_and_only_one_at_a_time() -> None:
    breaker = opened()
    due = [breaker.trial_due(1.9), breaker.trial_due(2.0)]
    limit_s = breaker.trial_begins(2.0)

    assert due == [False, True]
    assert limit_s == 10.0
    assert not breaker.trial_due(2.1)
    assert breaker.trial_due(12.0)  # the first one said nothing: its client left


def test_enough_answered_trials_close_it() -> None:
    breaker = opened()
    breaker.trial_begins(2.0)
    breaker.answered()
    breaker.trial_passed(2.5)
    between = breaker.closed
    due_at_once = breaker.trial_due(2.5)
    breaker.trial_begins(2.5)
    breaker.answered()

    assert (between, due_at_once, breaker.closed) == (False, True, True)


def test_a_failed_trial_doubles_the_wait_up_to_a_bound() -> None:
    breaker, waits = opened(), []
    for _ in range(8):
        now_s = breaker.trial_at_s
        breaker.trial_begins(now_s)
        breaker.failed(now_s, "again")
        waits.append(breaker.trial_at_s - now_s)

    assert waits == [4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0, 64.0]


def test_answers_to_requests_from_before_do_not_close_it() -> None:
    breaker = opened()
    for _ in range(50):
        breaker.answered()

    assert breaker.state is BreakerState.OPEN
