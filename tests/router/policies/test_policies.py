"""What holds for every policy of the registry, and what each is for."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_fakes import View, fleet
from router.errors import ConfigError
from router.policies import POLICIES, Policy, PolicyConfigs, build_policy
from router.records import Decision, Dispatched, RoutingRequest
from router.types import CacheCleared, PromptKey, Reason, RequestId, WorkerId, WorkerLeft


def request(blocks: tuple[int, ...] = (), session: str | None = None) -> RoutingRequest:
    key = PromptKey(blocks=blocks, unit_tokens=64.0, prompt_tokens=64.0 * len(blocks))
    return RoutingRequest(request_id=RequestId("r"), endpoint="/generate", key=key, session=session)


def build(name: str, seed: int = 1) -> Policy:
    return build_policy(name, PolicyConfigs(), Random(seed))


def send(policy: Policy, asked: RoutingRequest, workers: list[View]) -> Decision:
    decision = policy.select(asked, workers)
    policy.observe(Dispatched(request=asked, decision=decision, at_s=0.0))
    return decision


loads = st.lists(st.integers(0, 50), min_size=1, max_size=9)
prompts = st.lists(st.integers(1, 3), max_size=5).map(tuple)


@pytest.mark.parametrize("name", POLICIES)
@given(history=st.lists(prompts, max_size=10), asked=prompts, in_flight=loads)
@settings(max_examples=30)
def test_select_is_pure(
    name: str, history: list[tuple[int, ...]], asked: tuple[int, ...], in_flight: list[int]
) -> None:
    policy, twin = build(name), build(name)
    workers = fleet(*in_flight)
    for each in (policy, twin):
        for blocks in history:
            send(each, request(blocks), workers)

    first = policy.select(request(asked), workers)

    assert twin.select(request(asked), workers) == first
    assert first.worker in {worker.id for worker in workers}
    assert [worker.in_flight for worker in workers] == in_flight


@pytest.mark.parametrize("name", POLICIES)
def test_events_about_strangers_are_ignored(name: str) -> None:
    policy = build(name)
    for event in (WorkerLeft, CacheCleared):
        policy.observe(event(worker=WorkerId("stranger"), at_s=0.0))

    assert policy.select(request((1,)), fleet(0)).worker == "w0"


@pytest.mark.parametrize("name", ["random", "least_in_flight", "power_of_two", "prefix_match"])
def test_ties_are_broken_evenly(name: str) -> None:
    policy = build(name)
    counts = Counter(policy.select(request(), fleet(0, 0, 0, 0)).worker for _ in range(2000))

    assert min(counts.values()) > 350
    assert len(counts) == 4


def test_round_robin_takes_turns() -> None:
    policy = build("round_robin")

    assert [send(policy, request(), fleet(0, 0, 0)).worker for _ in range(4)] == ["w0", "w1", "w2", "w0"]


def test_least_in_flight_takes_the_least_loaded() -> None:
    assert build("least_in_flight").select(request(), fleet(3, 1, 2)).worker == "w1"


def test_power_of_two_never_takes_the_most_loaded_of_many() -> None:
    policy = build("power_of_two")

    assert "w2" not in {policy.select(request(), fleet(0, 1, 9, 2)).worker for _ in range(200)}


def test_a_session_stays_until_its_worker_is_overloaded_or_gone() -> None:
    policy = build("session_hash")
    home = policy.select(request(session="s"), fleet(0, 0, 0, 0)).worker
    busy = [View(worker.id, 40 if worker.id == home else 1) for worker in fleet(0, 0, 0, 0)]
    moved = policy.select(request(session="s"), busy)

    assert {policy.select(request(session="s"), fleet(2, 3, 1, 0)).worker for _ in range(20)} == {home}
    assert moved.worker != home
    assert moved.reason is Reason.SESSION_OVERFLOW
    for worker in fleet(0, 0, 0, 0):
        if worker.id != home:
            rest = [other for other in fleet(0, 0, 0, 0) if other.id != worker.id]
            assert policy.select(request(session="s"), rest).worker == home


def test_prefix_match_follows_the_longest_prefix() -> None:
    policy = build("prefix_match")
    home = send(policy, request((1, 2, 3)), fleet(0, 0, 0)).worker
    decision = policy.select(request((1, 2, 3, 4)), fleet(2, 2, 2))

    assert (decision.worker, decision.reason, decision.match_blocks) == (home, Reason.PREFIX, 3)
    assert decision.match_tokens == 192.0


def test_prefix_match_leaves_a_holder_that_is_much_busier() -> None:
    policy = build("prefix_match")
    home = send(policy, request((1, 2, 3)), fleet(0, 0, 0)).worker
    workers = [View(worker.id, 60 if worker.id == home else 1) for worker in fleet(0, 0, 0)]
    decision = policy.select(request((1, 2, 3)), workers)

    assert decision.worker != home
    assert decision.reason is Reason.PREFIX_BUSY


@pytest.mark.parametrize("event", [WorkerLeft, CacheCleared])
def test_prefix_match_forgets_a_worker_that_left_or_lost_its_cache(event: type[WorkerLeft]) -> None:
    policy = build("prefix_match")
    home = send(policy, request((1, 2)), fleet(0, 0)).worker
    policy.observe(event(worker=home, at_s=0.0))

    assert policy.select(request((1, 2)), fleet(0, 0)).reason is Reason.NO_PREFIX


def test_an_unknown_policy_is_named_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'round_robin'"):
        build("round_robbin")
