"""Limits of all processes together: their parts add up, who waits is served first, a client's own limits hold."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission.admission import AdmissionConfig
from router.errors import ConcurrencyLimited, RateLimited
from router.processes.shared_limits import SharedAddresses, SharedAdmission, allotment
from router.security.client import ANONYMOUS, Client

shares = st.dictionaries(st.integers(0, 8), st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1)


@given(st.integers(1, 200), shares)
def test_parts_add_up_to_what_is_free_and_nobody_is_stopped(total: int, known: dict[int, tuple[int, int]]) -> None:
    running = sum(each for each, _ in known.values())
    parts = {number: allotment(total, number, known) for number in known}

    assert sum(parts.values()) == max(total, running)
    assert all(parts[number] >= known[number][0] for number in known)


@given(st.integers(1, 200), shares)
def test_while_requests_wait_nothing_is_set_aside_for_processes_without_any(
    total: int, known: dict[int, tuple[int, int]]
) -> None:
    free = total - sum(each for each, _ in known.values())
    wanted = sum(each for _, each in known.values())
    if 0 < free <= wanted:
        idle = [number for number, (_, waiting) in known.items() if not waiting]

        assert all(allotment(total, number, known) == known[number][0] for number in idle)


def admissions(count: int, **config: int) -> list[SharedAdmission]:
    made = [SharedAdmission(AdmissionConfig(**config), lambda: 0.0, number) for number in range(count)]
    exchange(made)
    return made


def exchange(admissions: list[SharedAdmission]) -> None:
    """Each tells all others."""
    told = [each.told() for each in admissions]
    for number, each in enumerate(admissions):
        for source, what in enumerate(told):
            if source != number:
                each.heard(source, *what)
        each.share()


def test_together_they_let_in_as_many_as_one_would() -> None:
    both = admissions(2, max_in_flight=5)
    tickets = [each.arrive(ANONYMOUS, 10.0, "x") for _ in range(6) for each in both]

    assert [ticket.state for ticket in tickets].count("running") == 5


def test_a_process_that_has_nothing_yet_gets_what_the_other_frees() -> None:
    full, new = admissions(2, max_in_flight=4)
    full.resize(1)
    exchange([full, new])
    running = []
    for _ in range(3):
        running += [full.arrive(ANONYMOUS, 10.0, "x") for _ in range(2)]
        exchange([full, new])
    waiting = new.arrive(ANONYMOUS, 10.0, "y")
    exchange([full, new])
    before = waiting.state
    full.release(running[0])
    exchange([full, new])

    assert before == "waiting"
    assert new.queue.room == 1
    assert full.queue.running + new.queue.room <= 4


def test_a_clients_concurrency_and_rate_hold_for_all_processes_together() -> None:
    both = admissions(2)
    few = Client(name="few", concurrency=3)
    slow = Client(name="slow", rate_per_s=2.0)
    for each in both:
        each.arrive(few, 10.0, "few")
        each.arrive(slow, 10.0, "slow")
    exchange(both)
    both[0].arrive(few, 10.0, "few")
    exchange(both)

    with pytest.raises(ConcurrencyLimited):
        both[1].arrive(few, 10.0, "few")
    with pytest.raises(RateLimited):
        both[0].arrive(slow, 10.0, "slow")


def test_the_queue_is_shown_as_one_and_what_a_process_had_goes_with_it() -> None:
    both = admissions(2)
    for each in both:
        each.arrive(ANONYMOUS, 10.0, "x")
        each.refused["queue_full"] = 2
    exchange(both)
    both[0].seen(1, both[1].own_view())
    whole = both[0].view()
    both[0].gone(1)

    assert (whole["in_flight"], whole["room"], whole["refused"]) == (2, 1024, {"queue_full": 4})
    assert [(each["client"], each["in_flight"]) for each in whole["clients"]] == [("x", 2)]
    assert both[0].view()["in_flight"] == 1


def test_connections_of_an_address_are_counted_in_all_processes() -> None:
    counts = Counter({"a": 2})
    addresses = SharedAddresses(counts)
    addresses.heard(1, {"a": 3, "b": 1})
    counts["a"] += 1
    seen = dict(counts)
    own = addresses.own()
    addresses.heard(1, {"b": 2})
    changed = dict(counts)
    addresses.gone(1)

    assert seen == {"a": 6, "b": 1}
    assert own == {"a": 3}
    assert changed == {"a": 3, "b": 2}
    assert counts == {"a": 3}
