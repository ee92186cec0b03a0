"""The relay: everybody else gets what one tells, and who is too slow loses old events, is told so, and no message."""

from __future__ import annotations

from router.processes.frame import ALL, EVENTS, GAP, MESSAGE, Frames
from router.processes.relay import Outbox, Relay


def taken(box: Outbox) -> list[tuple[int, int, int, bytes]]:
    """All that is in it, written out."""
    frames, found = Frames(), []
    while (data := box.next()) is not None:
        found += list(frames.feed(bytes(data[:7])))
        box.written(min(7, len(data)))
    return found


def test_what_is_for_all_reaches_all_but_its_source() -> None:
    relay = Relay()
    boxes = [relay.join(number) for number in range(3)]
    relay.hand_on(1, ALL, EVENTS, b"x")

    assert [taken(box) for box in boxes] == [[(1, ALL, EVENTS, b"x")], [], [(1, ALL, EVENTS, b"x")]]


def test_what_is_for_one_reaches_that_one_in_its_order_and_nobody_who_is_gone() -> None:
    relay = Relay()
    boxes = [relay.join(number) for number in range(3)]
    relay.hand_on(0, 2, MESSAGE, b"first")
    relay.hand_on(1, ALL, EVENTS, b"second")
    relay.leave(0)
    relay.hand_on(2, 0, MESSAGE, b"too late")

    assert [payload for *_, payload in taken(boxes[2])] == [b"first", b"second"]
    assert taken(boxes[0]) == [(1, ALL, EVENTS, b"second")]


def test_a_slow_child_loses_its_oldest_events_once_told_and_no_message() -> None:
    relay = Relay(bound_bytes=10_000)
    box = relay.join(0)
    relay.hand_on(1, 0, MESSAGE, b"kept")
    for index in range(100):
        relay.hand_on(1, ALL, EVENTS, b"%03d" % index + bytes(500))
    found = taken(box)
    events = [payload[:3] for *_, kind, payload in found if kind == EVENTS]

    assert box.dropped == 100 - len(events) > 0
    assert events == [b"%03d" % index for index in range(100 - len(events), 100)]
    assert [payload for *_, kind, payload in found if kind == MESSAGE] == [b"kept"]
    assert [kind for *_, kind, _ in found].count(GAP) == 1
    assert sum(len(payload) for *_, payload in found) < 10_000
