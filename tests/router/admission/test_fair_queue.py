"""The queue: fair between clients, bounded, and forgetful of those that have left."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from router.admission.fair_queue import FairQueue, Ticket


def serve(queue: FairQueue, count: int) -> list[str]:
    """Who is served when one after another is done: `count` turns on the one place there is."""
    running = [ticket for ticket in TICKETS if ticket.state == "running"]
    order = []
    for _ in range(count):
        queue.leave(running.pop())
        ticket = queue.next()
        assert ticket is not None
        running.append(ticket)
        order.append(ticket.client)
    return order


TICKETS: list[Ticket] = []


def fill(queue: FairQueue, **requests: int) -> None:
    """One request runs; then each client's come in one after another."""
    TICKETS[:] = [Ticket("runs")]
    queue.arrive(TICKETS[0])
    for client, count in requests.items():
        for _ in range(count):
            TICKETS.append(Ticket(client))
            queue.arrive(TICKETS[-1])


def test_a_flood_of_one_client_does_not_delay_another_by_more_than_a_turn() -> None:
    queue = FairQueue(room=1, max_waiting=1000)
    fill(queue, flood=500, small=5)

    order = serve(queue, 12)
    assert order.count("small") == 5
    assert max(i for i, client in enumerate(order) if client == "small") <= 10


def test_shares_follow_weights_and_the_lightest_is_not_starved() -> None:
    queue = FairQueue(room=1, max_waiting=1000)
    TICKETS[:] = [Ticket("runs")]
    queue.arrive(TICKETS[0])
    for _ in range(100):
        queue.arrive(Ticket("heavy", weight=4.0))
        queue.arrive(Ticket("light", weight=1.0))

    served = Counter(serve(queue, 50))
    assert served == {"heavy": 40, "light": 10}


def test_expensive_requests_use_up_a_share_sooner() -> None:
    queue = FairQueue(room=1, max_waiting=1000)
    TICKETS[:] = [Ticket("runs")]
    queue.arrive(TICKETS[0])
    for _ in range(40):
        queue.arrive(Ticket("long", cost=9.0))
        queue.arrive(Ticket("short", cost=1.0))

    served = Counter(serve(queue, 30))
    assert served["short"] == 9 * served["long"]


def test_a_client_that_leaves_and_comes_back_gains_nothing() -> None:
    queue = FairQueue(room=1, max_waiting=1000)
    fill(queue, patient=20)
    quitter = Ticket("quitter", cost=100.0)
    queue.arrive(quitter)
    queue.leave(quitter)
    queue.arrive(Ticket("quitter"))

    assert serve(queue, 20) == ["patient"] * 20


def test_a_full_queue_pushes_out_the_last_of_whoever_waits_with_most() -> None:
    queue = FairQueue(room=1, max_waiting=10)
    fill(queue, flood=10)
    last = TICKETS[-1]
    pushed = queue.arrive(Ticket("small"))
    own = Ticket("flood")

    assert pushed is last
    assert queue.arrive(own) is own
    assert queue.waiting == 10


def test_nothing_waits_while_there_is_room_and_nothing_is_forgotten_when_room_grows() -> None:
    queue = FairQueue(room=2, max_waiting=10)
    tickets = [Ticket("a") for _ in range(5)]
    for ticket in tickets:
        queue.arrive(ticket)
    queue.room = 4
    granted = [queue.next(), queue.next(), queue.next()]

    assert [ticket.state for ticket in tickets] == ["running"] * 4 + ["waiting"]
    assert granted == [tickets[2], tickets[3], None]


def test_invented_clients_fill_no_memory() -> None:
    queue = FairQueue(room=100, max_waiting=10)
    for i in range(10_000):
        ticket = Ticket(f"client-{i}")
        queue.arrive(ticket)
        queue.leave(ticket)

    assert len(list(queue.shares())) <= 16


@given(st.lists(st.tuples(st.sampled_from("ar"), st.integers(0, 3)), max_size=200))
def test_counts_are_true_whatever_happens(steps: list[tuple[str, int]]) -> None:
    queue, here = FairQueue(room=3, max_waiting=5), []
    for what, number in steps:
        if what == "a":
            ticket = Ticket(f"c{number}", weight=1.0 + number)
            gone = queue.arrive(ticket)
            here.append(ticket)
            if gone is not None:
                here.remove(gone)
        elif here:
            queue.leave(here.pop(number % len(here)))
            while queue.next():
                pass
        states = Counter(ticket.state for ticket in here)
        assert queue.running == states["running"] <= 3
        assert queue.waiting == states["waiting"] <= 5
        assert states["waiting"] == 0 or states["running"] == 3
        assert sum(share.waiting + share.running for _, share in queue.shares()) == len(here)
