"""The store of recent requests is bounded and says what is known, and nothing that is not."""

from __future__ import annotations

from outcomes import decision, key, outcome
from router.telemetry.recent_requests import ExplainConfig, RecentRequests
from router.telemetry.weighing import Weighed, Weighing
from router.types import RequestId, WorkerId


def weighing(worker: str = "w1") -> Weighing:
    seen = Weighed(worker=WorkerId(worker), in_flight=0, waiting=None, candidate=None)
    return Weighing(policy="random", arm=None, decision=decision(worker), workers=(seen,))


def test_a_request_is_found_while_it_runs_and_after_it_ended() -> None:
    store = RecentRequests(ExplainConfig())
    store.decided(RequestId("a"), weighing())
    running = store.find("a")
    assert running is not None
    assert running.outcome is None

    store.ended(outcome("a"))

    assert store.find("a") is running
    assert running.outcome == outcome("a")
    assert [each.decision.worker for each in running.weighings] == ["w1"]


def test_a_retry_adds_a_decision_to_the_same_request() -> None:
    store = RecentRequests(ExplainConfig())
    store.decided(RequestId("a"), weighing("w1"))
    store.decided(RequestId("a"), weighing("w2"))

    entry = store.find("a")

    assert entry is not None
    assert [each.decision.worker for each in entry.weighings] == ["w1", "w2"]


def test_of_two_requests_with_one_id_the_later_is_kept() -> None:
    store = RecentRequests(ExplainConfig())
    store.ended(outcome("a", status=500))
    store.decided(RequestId("a"), weighing("w2"))
    store.ended(outcome("a"))

    assert len(store) == 1
    assert [each.status for each in store.outcomes()] == [200]


def test_the_oldest_go_first_and_the_newest_are_listed_first() -> None:
    store = RecentRequests(ExplainConfig(keep=3))
    for i in range(5):
        store.ended(outcome(f"r{i}"))

    assert [entry.request_id for entry in store.latest(10)] == ["r4", "r3", "r2"]
    assert store.find("r1") is None


def test_what_others_keep_is_shown_beside_ones_own_by_its_end_and_is_bounded() -> None:
    store, other = RecentRequests(ExplainConfig()), RecentRequests(ExplainConfig())
    store.ended(outcome("mine", at_s=105.0))
    for place, name in enumerate(("a", "b", "c")):
        other.ended(outcome(name, at_s=101.0 + 2 * place))
    other.decided(RequestId("running"), weighing())
    store.borrow(other.latest_own(10), most=2)
    store.borrow([found for found in [other.own("running")] if found is not None], most=3)

    assert [entry.request_id for entry in store.latest(2)] == ["mine", "b"]
    assert [each.request_id for each in store.outcomes()] == ["a", "b", "mine"]
    assert store.find("running") is other.find("running")
    assert (store.own("a"), len(store)) == (None, 1)


def test_long_prompts_of_others_are_bounded_too() -> None:
    store, other = RecentRequests(ExplainConfig(keep_blocks=10)), RecentRequests(ExplainConfig())
    for i in range(6):
        other.ended(outcome(f"r{i}", key=key(1, 2, 3, 4)))
    store.borrow(other.latest_own(10), most=100)

    assert len(list(store.outcomes())) == 2


def test_long_prompts_cannot_make_it_grow_without_bound() -> None:
    store = RecentRequests(ExplainConfig(keep=100, keep_blocks=10))
    for i in range(6):
        store.ended(outcome(f"r{i}", key=key(1, 2, 3, 4)))

    assert len(store) == 2
    store.ended(outcome("huge", key=key(*range(50))))
    assert [each.request_id for each in store.outcomes()] == ["huge"]
