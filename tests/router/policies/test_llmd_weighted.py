"""What characterises llm-d's profile: three scores, their weights, and a match that looks at the head only."""

from __future__ import annotations

from random import Random

import pytest

from policy_fakes import View, dispatch, fleet, request
from router.policies import Policy
from router.policies.llmd_weighted import LlmdWeighted, LlmdWeightedConfig
from router.prefix.block_sizes import units_until
from router.records import Finished, FirstToken, Outcome
from router.types import AttemptFailed, CacheCleared, LoadReport, Reason, RequestId, WorkerId, WorkerJoined, WorkerLeft


def llmd(**knobs: float) -> LlmdWeighted:
    return LlmdWeighted(LlmdWeightedConfig(**knobs), Random(0))  # type: ignore[arg-type]


def usage(used: int, capacity: int = 100) -> LoadReport:
    return LoadReport(
        at_s=0.0, running=0, waiting=0, waiting_uncached_tokens=0, used_tokens=used, capacity_tokens=capacity
    )


def first_token(policy: Policy, name: str, worker: str) -> None:
    policy.observe(FirstToken(request_id=RequestId(name), worker=WorkerId(worker), ttft_s=1.0, at_s=0.0))


def test_a_whole_match_beats_a_shorter_queue() -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, name="a"), "w1")

    decision = policy.select(request(1, 2), fleet(0, 0))

    assert (decision.worker, decision.match_tokens, decision.reason) == ("w1", 200.0, Reason.LOWEST_COST)


def test_a_shorter_queue_beats_a_match_of_half() -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, name="a"), "w1")

    assert policy.select(request(1, 2, 3, 4), fleet(0, 0)).worker == "w0"


@pytest.mark.parametrize("end", ["first token", "finished", "failed"])
def test_a_request_queues_until_its_first_token_or_its_end(end: str) -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, name="a"), "w1")
    name, worker = RequestId("a"), WorkerId("w1")
    if end == "first token":
        first_token(policy, "a", "w1")
    elif end == "finished":
        outcome = Outcome(request_id=name, endpoint="/generate", at_s=0.0, status=200, e2e_s=1.0)
        policy.observe(Finished(request_id=name, worker=worker, outcome=outcome, at_s=0.0))
    else:
        policy.observe(AttemptFailed(request_id=name, worker=worker, at_s=0.0))

    assert policy.select(request(1, 2, 3, 4), fleet(0, 0)).worker == "w1"


def test_free_kv_memory_weighs_two_thirds_of_a_whole_match() -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, 3, name="a"), "w1")
    first_token(policy, "a", "w1")
    full, empty = View(WorkerId("w1"), load=usage(99)), View(WorkerId("w0"), load=usage(0))

    assert policy.select(request(1, 2, 3), [empty, full]).worker == "w1"  # 3.0 against 1.98
    assert policy.select(request(1, 2, 4, 5), [empty, full]).worker == "w0"  # 1.5 against 1.98
    assert policy.select(request(7), [View(WorkerId("w0"), load=usage(5, 0)), full]).worker == "w0"


def test_only_the_first_4096_tokens_are_compared() -> None:
    policy, whole = llmd(), llmd(max_match_tokens=0)
    prompt = tuple(range(1, 101))
    other = (*range(1, 37), *range(1001, 1061))  # its first 36 blocks have 40 units of 100 tokens
    for one in (policy, whole):
        dispatch(one, request(*prompt, name="a"), "w1")
        first_token(one, "a", "w1")

    assert policy.select(request(*other), fleet(0, 0)).match_tokens == 4000.0
    assert policy.select(request(*prompt), fleet(0, 0)).match_tokens == 4000.0
    assert whole.select(request(*prompt), fleet(0, 0)).match_tokens == 100.0 * units_until(100)


def test_the_index_of_a_worker_is_bounded_in_tokens() -> None:
    policy = llmd(capacity_tokens=300)
    dispatch(policy, request(1, 2, name="a"), "w0")
    dispatch(policy, request(3, 4, name="b"), "w0")

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 1
    assert policy.select(request(3, 4), fleet(0)).match_blocks == 2


@pytest.mark.parametrize("event", [WorkerLeft, CacheCleared])
def test_a_worker_that_left_or_lost_its_cache_matches_nothing(event: type[WorkerLeft]) -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(event(worker=WorkerId("w0"), at_s=0.0))

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [("queue_weight", "weights"), ("max_match_tokens", "max_match_tokens"), ("capacity_tokens", "capacity_tokens")],
)
def test_knobs_that_cannot_work_are_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        llmd(**{name: -1})


def test_a_worker_that_joins_changes_nothing_yet() -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, name="a"), "w0")
    policy.observe(WorkerJoined(worker=WorkerId("w1"), at_s=0.0))

    assert policy.select(request(1, 2), fleet(0)).match_blocks == 2


def test_it_says_how_much_it_remembers_of_each_worker() -> None:
    policy = llmd()
    dispatch(policy, request(1, 2, name="a"), "w0")
    dispatch(policy, request(1, name="b"), "w1")

    assert policy.index_blocks() == {"w0": 2, "w1": 1}
