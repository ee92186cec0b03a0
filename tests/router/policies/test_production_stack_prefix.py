"""What characterises production-stack's prefixaware: the deepest match, at random among its holders, at any load."""

from __future__ import annotations

from random import Random

import pytest

from policy_fakes import dispatch, fleet, request
from router.policies import Policy
from router.policies.production_stack_prefix import ProductionStackPrefix, ProductionStackPrefixConfig
from router.records import RoutingRequest
from router.types import CacheCleared, Reason, WorkerId, WorkerJoined, WorkerLeft


def stack(**knobs: int) -> ProductionStackPrefix:
    return ProductionStackPrefix(ProductionStackPrefixConfig(**knobs), Random(0))


def chosen(policy: Policy, asked: RoutingRequest, *in_flight: int) -> set[str]:
    return {policy.select(asked, fleet(*in_flight)).worker for _ in range(60)}


def test_one_shared_block_outweighs_any_load() -> None:
    policy = stack()
    dispatch(policy, request(1, 2), "w1")
    decision = policy.select(request(1, 9, 9), fleet(0, 1000, 0))

    assert (decision.worker, decision.reason, decision.match_tokens) == ("w1", Reason.PREFIX, 100.0)


def test_holders_of_the_deepest_match_share_at_random() -> None:
    policy = stack()
    for worker in ("w0", "w2"):
        dispatch(policy, request(1, 2), worker)
    dispatch(policy, request(1), "w1")

    assert chosen(policy, request(1, 2), 9, 0, 0) == {"w0", "w2"}


def test_what_nobody_holds_goes_anywhere() -> None:
    policy = stack()
    dispatch(policy, request(1), "w0")

    assert chosen(policy, request(7), 0, 50, 0) == {"w0", "w1", "w2"}
    assert policy.select(request(7), fleet(0, 0)).reason is Reason.NO_PREFIX


def test_below_the_least_match_the_lowest_request_rate_of_the_last_minute_wins() -> None:
    policy = stack(min_match_tokens=150)
    dispatch(policy, request(1), "w0", at_s=0.0)
    dispatch(policy, request(2), "w0", at_s=1.0)
    dispatch(policy, request(3), "w1", at_s=2.0)
    assert chosen(policy, request(1), 0, 0) == {"w1"}

    dispatch(policy, request(4), "w0", at_s=61.5)
    assert chosen(policy, request(1), 0, 0) == {"w0", "w1"}
    assert policy.select(request(1), fleet(0, 0)).reason is Reason.LEAST_LOADED


def test_the_index_of_a_worker_is_bounded() -> None:
    policy = stack(capacity_blocks=2)
    dispatch(policy, request(1, 2), "w0")
    dispatch(policy, request(3, 4), "w0")

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 0


@pytest.mark.parametrize("event", [WorkerLeft, CacheCleared])
def test_a_worker_that_left_or_lost_its_cache_matches_nothing(event: type[WorkerLeft]) -> None:
    policy = stack()
    dispatch(policy, request(1, 2), "w0")
    policy.observe(WorkerJoined(worker=WorkerId("w1"), at_s=0.0))
    policy.observe(event(worker=WorkerId("w0"), at_s=0.0))

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 0


@pytest.mark.parametrize("name", ["min_match_tokens", "capacity_blocks"])
def test_knobs_that_cannot_work_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        stack(**{name: -1})


def test_it_says_how_much_it_remembers_of_each_worker() -> None:
    policy = stack()
    dispatch(policy, request(1, 2, name="a"), "w0")
    dispatch(policy, request(1, name="b"), "w1")

    assert policy.index_blocks() == {"w0": 2, "w1": 1}
