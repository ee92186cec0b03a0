"""Who is asked next among requests that wait at the router for a worker to have room."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.held_queue import MISSES, Held, HeldQueue, HoldConfig
from router.errors import ConfigError
from router.records import Decision
from router.types import Reason, WorkerId

CONFIG = HoldConfig(patience=10.0, least_s=1.0)


def going_to(worker: str, own_s: float = 1.0, wait_s: float = 5.0, *, hold: bool = True) -> Decision:
    return Decision(
        worker=WorkerId(worker),
        reason=Reason.LOWEST_COST,
        expected_ttft_s=wait_s + own_s,
        expected_wait_s=wait_s,
        hold=hold,
    )


def queued(*places: tuple[str, float, float]) -> tuple[HeldQueue, list[Held]]:
    """(worker, arrived_s, own_s) each."""
    queue, made = HeldQueue(CONFIG), []
    for number, (worker, arrived_s, own_s) in enumerate(places):
        made.append(Held(arrived_s, tag=number))
        queue.put(made[-1], going_to(worker, own_s))
    return queue, made


def asked(queue: HeldQueue, worker: str, taken: int = 0) -> list[int]:
    """Tags in the order in which they are asked; the first `taken` of them leave, the others are put back."""
    order = []
    for held in queue.turns(WorkerId(worker)):
        order.append(held.tag)
        if len(order) <= taken:
            queue.take(held)
        else:
            queue.put(held, going_to(worker, own_s=(held.due_s - held.arrived_s - 1.0) / 10.0))
    return order


def test_the_one_with_least_work_is_asked_first() -> None:
    queue, _ = queued(("a", 0.0, 3.0), ("a", 0.1, 0.5), ("a", 0.2, 1.0))

    assert asked(queue, "a", taken=3) == [1, 2, 0]
    assert queue.size == 0


def test_nobody_is_passed_for_longer_than_patience_times_its_own_work() -> None:
    """30 s of patience and 1 s more for 3 s of work: what comes after that is asked after it, however short."""
    queue, _ = queued(("a", 0.0, 3.0), ("a", 29.0, 0.0), ("a", 30.5, 0.0))

    assert asked(queue, "a", taken=3) == [1, 0, 2]


def test_a_request_that_is_due_waits_no_more_whatever_the_policy_says() -> None:
    queue, [held] = queued(("a", 0.0, 1.0))

    assert held.due_s == 11.0
    assert queue.waits(going_to("a"), held, 10.9)
    assert not queue.waits(going_to("a"), held, 11.0)


def test_only_what_the_policy_would_rather_decide_later_is_held() -> None:
    queue = HeldQueue(CONFIG)

    assert queue.waits(going_to("a"), Held(0.0), 1e9)
    assert not queue.waits(going_to("a", hold=False), Held(0.0), 0.0)


def test_those_for_the_worker_are_asked_and_the_first_of_all_so_that_one_long_list_blocks_no_other() -> None:
    queue, _ = queued(*[("a", 0.0, 0.1 * n) for n in range(1, 9)], ("b", 0.0, 5.0), ("b", 0.0, 6.0), ("b", 0.0, 7.0))

    assert asked(queue, "b", taken=2) == [0, 8, 9, 10]
    assert asked(queue, "c") == [1]


def test_asking_ends_after_some_that_must_wait_on() -> None:
    queue, _ = queued(*[("a", 0.0, float(n)) for n in range(20)])

    assert asked(queue, "a") == list(range(MISSES))
    assert asked(queue, "a", taken=3) == list(range(3 + MISSES))


def test_a_request_may_come_to_prefer_another_worker_and_then_has_its_place_there() -> None:
    queue, [held] = queued(("a", 0.0, 1.0))
    queue.put(held, going_to("b", own_s=2.0))

    assert queue.sizes() == {WorkerId("b"): 1}
    assert queue.size == 1
    assert held.due_s == 21.0


def test_priority_shortens_the_wait() -> None:
    queue = HeldQueue(CONFIG)
    plain, urgent = Held(0.0, weight=1.0, tag=0), Held(0.0, weight=4.0, tag=1)
    queue.put(plain, going_to("a", 1.0))
    queue.put(urgent, going_to("a", 2.0))

    assert asked(queue, "a", taken=2) == [1, 0]


def test_every_worker_that_is_waited_for_has_its_turn_to_be_looked_at() -> None:
    queue, _ = queued(("a", 0.0, 1.0), ("b", 0.0, 1.0), ("c", 0.0, 1.0))

    assert {queue.next_worker() for _ in range(3)} == {"a", "b", "c"}
    assert HeldQueue(CONFIG).next_worker() is None


def test_taking_one_that_does_not_wait_changes_nothing() -> None:
    queue, [held] = queued(("a", 0.0, 1.0))
    queue.take(held)
    queue.take(held)

    assert (queue.size, queue.sizes()) == (0, {})


def test_a_decision_that_foretells_nothing_has_no_work() -> None:
    queue, held = HeldQueue(CONFIG), Held(2.0)
    queue.put(held, Decision(worker=WorkerId("a"), reason=Reason.TURN, hold=True))

    assert held.due_s == 3.0


@pytest.mark.parametrize("wrong", [{"patience": -1.0}, {"patience": inf}, {"least_s": -1.0}, {"least_s": 1e9}])
def test_absurd_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises((ConfigError, ValueError), match="must be between"):
        HoldConfig(**wrong)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 50.0), st.booleans()), max_size=60))
def test_the_queue_is_what_a_plain_list_would_be(steps: list[tuple[str, float, bool]]) -> None:
    """Whatever is put, moved and taken: sizes agree with a list, and the first asked is the list's earliest."""
    queue, there = HeldQueue(CONFIG), list[Held]()
    for number, (worker, own_s, leave) in enumerate(steps):
        if leave and there:
            queue.take(there.pop(number % len(there)))
        else:
            held = Held(float(number), tag=number) if number % 3 or not there else there[0]
            queue.put(held, going_to(worker, own_s))
            if held not in there:
                there.append(held)
        assert queue.size == len(there) == sum(queue.sizes().values())
        first = next(queue.turns(WorkerId("a")), None)
        assert first is (min(there, key=lambda held: (held.due_s, held.number)) if there else None)
