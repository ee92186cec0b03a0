"""What characterises SMG's cache_aware: two gates, counts of requests, and owners that stay."""

from __future__ import annotations

from random import Random

import pytest

from policy_fakes import dispatch, fleet, request
from router.policies.smg_cache_aware import SmgCacheAware, SmgCacheAwareConfig
from router.types import (
    CacheCleared,
    Reason,
    WorkerId,
    WorkerJoined,
    WorkerLeft,
)


def smg(**knobs: float) -> SmgCacheAware:
    return SmgCacheAware(SmgCacheAwareConfig(**knobs), Random(0))  # type: ignore[arg-type]


def test_a_match_of_more_than_three_tenths_is_followed_however_busy_its_worker() -> None:
    policy = smg()
    dispatch(policy, request(1, 2, 3, 4), "w1")

    decision = policy.select(request(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), fleet(0, 60, 0))

    assert (decision.worker, decision.reason, decision.match_tokens) == ("w1", Reason.PREFIX, 400.0)


def test_a_match_of_three_tenths_is_not_followed() -> None:
    policy = smg()
    dispatch(policy, request(1, 2, 3), "w1")

    decision = policy.select(request(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), fleet(1, 1, 0))

    assert (decision.worker, decision.reason) == ("w2", Reason.NO_PREFIX)


@pytest.mark.parametrize(("most", "expected"), [(64, "w1"), (65, "w0")])
def test_affinity_is_given_up_when_counts_differ_by_more_than_64(most: int, expected: str) -> None:
    policy = smg()
    dispatch(policy, request(1, 2), "w1")

    assert policy.select(request(1, 2), fleet(0, most)).worker == expected


def test_a_difference_below_half_of_the_least_is_not_uneven() -> None:
    policy = smg()
    dispatch(policy, request(1, 2), "w1")

    assert policy.select(request(1, 2), fleet(200, 299)).worker == "w1"
    assert policy.select(request(1, 2), fleet(200, 301)).worker == "w0"


def test_a_prefix_stays_with_the_worker_that_was_sent_it_first() -> None:
    policy = smg()
    dispatch(policy, request(1, 2), "w1")
    dispatch(policy, request(1, 2), "w0")

    assert policy.select(request(1, 2), fleet(0, 5)).worker == "w1"


def test_misses_go_to_the_first_of_those_with_the_fewest_in_flight() -> None:
    policy = smg()
    dispatch(policy, request(1), "w0")

    assert policy.select(request(7), fleet(1, 0, 0)).worker == "w1"
    assert policy.select(request(7), fleet(0, 0, 0)).worker == "w0"


def test_under_uneven_load_ties_go_to_who_has_had_the_fewest() -> None:
    policy = smg()
    dispatch(policy, request(1), "w0")

    decision = policy.select(request(7), fleet(0, 0, 100))

    assert (decision.worker, decision.reason) == ("w1", Reason.LEAST_LOADED)


@pytest.mark.parametrize("event", [WorkerLeft, CacheCleared])
def test_when_the_owner_is_gone_another_holder_takes_over(event: type[WorkerLeft]) -> None:
    policy = smg()
    dispatch(policy, request(1, 2), "w1")
    dispatch(policy, request(1, 2), "w2")
    policy.observe(event(worker=WorkerId("w1"), at_s=0.0))

    assert policy.select(request(1, 2), fleet(0, 0, 5)).worker == "w2"


def test_a_match_on_a_worker_that_may_not_be_used_goes_to_the_first() -> None:
    policy = smg()
    dispatch(policy, request(1, 2), "w9")

    assert policy.select(request(1, 2), fleet(3, 0)).worker == "w0"


def test_the_least_recently_used_text_goes_at_the_next_eviction() -> None:
    policy = smg(max_tree_tokens=200, eviction_interval_s=60.0)
    dispatch(policy, request(1, 2), "w1", at_s=0.0)
    dispatch(policy, request(3, 4), "w1", at_s=59.0)

    assert policy.select(request(1, 2), fleet(0, 0)).reason is Reason.PREFIX
    dispatch(policy, request(3, 4), "w1", at_s=61.0)
    assert policy.select(request(1, 2), fleet(0, 0)).reason is Reason.NO_PREFIX
    assert policy.select(request(3, 4), fleet(0, 0)).reason is Reason.PREFIX
    dispatch(policy, request(3, 4), "w1", at_s=200.0)  # nothing to evict
    assert policy.select(request(3, 4), fleet(0, 0)).reason is Reason.PREFIX


@pytest.mark.parametrize(
    "knobs",
    [
        {"cache_threshold": 1.1},
        {"balance_abs_threshold": -1},
        {"balance_rel_threshold": 0.9},
        {"eviction_interval_s": 0},
        {"max_tree_tokens": 0},
    ],
)
def test_knobs_that_cannot_work_are_refused_by_name(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs))):
        smg(**knobs)


def test_a_worker_that_joins_changes_nothing_yet() -> None:
    policy = smg()
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(WorkerJoined(worker=WorkerId("w1"), at_s=0.0))

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 2


def test_it_says_how_much_it_remembers_of_each_worker() -> None:
    policy = smg()
    dispatch(policy, request(1, 2, name="a"), "w0")
    dispatch(policy, request(1, name="b"), "w1")

    assert policy.index_blocks() == {"w0": 2, "w1": 1}
