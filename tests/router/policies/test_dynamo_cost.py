"""What characterises Dynamo's cost: booked prefill, blocks in use, and an index that forgets after two minutes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from policy_fakes import dispatch, fleet, request
from router.policies import Policy
from router.policies.dynamo_cost import DynamoCost, DynamoCostConfig
from router.records import Dispatched, Finished, FirstToken, Outcome, RoutingRequest
from router.types import (
    AttemptFailed,
    CacheCleared,
    LoadReport,
    LoadReported,
    Reason,
    RequestId,
    WorkerId,
    WorkerJoined,
    WorkerLeft,
)


def dynamo(**knobs: float) -> DynamoCost:
    return DynamoCost(DynamoCostConfig(**knobs), Random(0))  # type: ignore[arg-type]


def first_token(policy: Policy, name: str, worker: str) -> None:
    policy.observe(FirstToken(request_id=RequestId(name), worker=WorkerId(worker), ttft_s=1.0, at_s=0.0))


def finished(policy: Policy, name: str, worker: str) -> None:
    outcome = Outcome(request_id=RequestId(name), endpoint="/generate", at_s=0.0, status=200, e2e_s=1.0)
    policy.observe(Finished(request_id=RequestId(name), worker=WorkerId(worker), outcome=outcome, at_s=0.0))


def chosen(policy: Policy, asked: RoutingRequest, workers: int = 2) -> set[str]:
    return {policy.select(asked, fleet(*[0] * workers)).worker for _ in range(40)}


def test_a_match_counts_as_prefill_saved() -> None:
    policy = dynamo()
    dispatch(policy, request(1, 2, 3, name="a"), "w1")
    finished(policy, "a", "w1")

    decision = policy.select(request(1, 2, 3, 4), fleet(0, 0))

    assert (decision.worker, decision.match_tokens, decision.reason) == ("w1", 300.0, Reason.LOWEST_COST)


def test_prefill_that_waits_outweighs_a_shorter_match() -> None:
    policy = dynamo()
    dispatch(policy, request(1, name="a"), "w1")
    dispatch(policy, request(5, 6, 7, name="b"), "w1")

    assert chosen(policy, request(1, 2)) == {"w0"}


def test_prefill_is_freed_by_the_first_token_and_blocks_by_the_end() -> None:
    policy = dynamo()
    dispatch(policy, request(5, 6, 7, name="b"), "w1")  # on w1: prefill 300, active 300
    dispatch(policy, request(8, 9, name="c", tokens=250.0), "w0")
    first_token(policy, "c", "w0")  # on w0: prefill 0, active 250
    assert chosen(policy, request(1)) == {"w0"}

    first_token(policy, "b", "w1")
    assert chosen(policy, request(1)) == {"w0"}  # 300 blocks in use against 250

    finished(policy, "b", "w1")
    assert chosen(policy, request(1)) == {"w1"}
    finished(policy, "c", "w0")
    assert chosen(policy, request(1)) == {"w0", "w1"}


def test_blocks_that_active_requests_share_count_once() -> None:
    policy = dynamo(overlap_credit=0.0)
    dispatch(policy, request(1, 2, 3, name="a"), "w0")
    dispatch(policy, request(1, 2, 3, 4, name="b"), "w0")  # together 400 tokens
    dispatch(policy, request(5, 6, 7, 8, 9, name="c"), "w1")  # 500
    for name, worker in (("a", "w0"), ("b", "w0"), ("c", "w1")):
        first_token(policy, name, worker)

    assert chosen(policy, request(20)) == {"w0"}
    finished(policy, "b", "w0")
    finished(policy, "c", "w1")
    assert chosen(policy, request(20)) == {"w1"}


def test_shared_blocks_can_be_counted_for_each_request() -> None:
    policy = dynamo(overlap_credit=0.0, share_active_blocks=False)
    dispatch(policy, request(1, 2, 3, name="a"), "w0")
    dispatch(policy, request(1, 2, 3, 4, name="b"), "w0")  # 700 tokens
    dispatch(policy, request(5, 6, 7, 8, 9, name="c"), "w1")  # 500
    for name, worker in (("a", "w0"), ("b", "w0"), ("c", "w1")):
        first_token(policy, name, worker)

    assert chosen(policy, request(20)) == {"w1"}


def test_a_prompt_is_forgotten_two_minutes_after_its_last_use() -> None:
    policy = dynamo()
    dispatch(policy, request(1, 2, name="a"), "w1", at_s=0.0)
    finished(policy, "a", "w1")
    load = LoadReport(at_s=0.0, running=0, waiting=0, waiting_uncached_tokens=0, used_tokens=0, capacity_tokens=1)

    policy.observe(LoadReported(worker=WorkerId("w0"), load=load, at_s=120.0))
    assert policy.select(request(1, 2), fleet(0, 0)).match_blocks == 2
    policy.observe(LoadReported(worker=WorkerId("w0"), load=load, at_s=120.1))
    assert chosen(policy, request(1, 2)) == {"w0", "w1"}


def test_the_index_is_cut_to_four_fifths_of_its_bound() -> None:
    policy = dynamo(max_blocks=10)
    dispatch(policy, request(*range(1, 11), name="a"), "w0")
    dispatch(policy, request(99, name="b"), "w0")
    finished(policy, "a", "w0")
    finished(policy, "b", "w0")

    assert policy.select(request(*range(1, 11)), fleet(0)).match_blocks == 7


def test_an_attempt_that_failed_leaves_nothing_booked() -> None:
    policy = dynamo(overlap_credit=0.0)
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(AttemptFailed(request_id=RequestId("a"), worker=WorkerId("w0"), at_s=0.0))

    assert chosen(policy, request(9)) == {"w0", "w1"}


def test_a_cleared_cache_is_empty_and_its_load_stays() -> None:
    policy = dynamo()
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(CacheCleared(worker=WorkerId("w0"), at_s=0.0))

    decision = policy.select(request(1, 2), fleet(0, 0))

    assert (decision.worker, decision.match_blocks) == ("w1", 0)


def test_what_ends_on_a_worker_that_left_does_not_touch_its_successor() -> None:
    policy = dynamo(overlap_credit=0.0)
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(WorkerLeft(worker=WorkerId("w0"), at_s=0.0))
    dispatch(policy, request(3, name="b"), "w0")
    finished(policy, "a", "w0")

    assert chosen(policy, request(9)) == {"w1"}


def test_temperature_draws_cheap_workers_more_often() -> None:
    policy = dynamo(temperature=0.5)
    dispatch(policy, request(1, 2, 3, name="a"), "w0")
    counts = [policy.select(request(9), fleet(0, 0)).worker for _ in range(400)].count(WorkerId("w1"))
    even = {policy.select(request(9), fleet(0)).worker}

    assert 300 < counts < 395
    assert even == {"w0"}


@pytest.mark.parametrize("name", ["prefill_load_scale", "overlap_credit", "temperature", "ttl_s", "max_blocks"])
def test_knobs_that_cannot_work_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        dynamo(**{name: -1})


def test_a_worker_that_joins_changes_nothing_yet() -> None:
    policy = dynamo()
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(WorkerJoined(worker=WorkerId("w1"), at_s=0.0))

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 2


def test_what_kv_events_say_counts_more_than_its_own_index() -> None:
    policy = dynamo()
    dispatch(policy, request(1, 2, 3, name="a"), "w0")
    finished(policy, "a", "w0")
    asked = replace(request(1, 2, 3), known_match_tokens={WorkerId("w0"): 0, WorkerId("w1"): 250})

    decision = policy.select(asked, fleet(0, 0))
    policy.observe(Dispatched(request=asked, decision=decision, at_s=0.0))

    assert (decision.worker, decision.match_tokens) == ("w1", 250.0)
    first_token(policy, "r", "w1")
    assert policy.index_blocks() == {"w0": 3, "w1": 3}
