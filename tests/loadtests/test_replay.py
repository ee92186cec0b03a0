"""Replay as a policy sees it, and as its figures must be: complete, repeatable, and in the order of a live router."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from loadtests.replay import ReplayConfig, busy_share, replay
from loadtests.replay_policy import PolicyError
from loadtests.replay_source import ReplayTraffic, traffic_of
from loadtests.traces import BlockRequest
from router.policies import POLICIES
from router.policies.round_robin import RoundRobin
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, RoutingRequest
from router.types import LoadReported, WorkerJoined, Workers
from workers.simulated.cost_model import H200_QWEN3_8B


def block(
    at_s: float, tokens: int = 1024, output: int = 5, *, first: int = 0, session: str | None = None, turn: int = 0
) -> BlockRequest:
    blocks = tuple(range(first, first + -(-tokens // 512)))
    return BlockRequest(
        arrival_s=at_s, prompt_tokens=tokens, output_tokens=output, blocks=blocks, session_id=session, turn=turn
    )


def traffic(*requests: BlockRequest, wait: bool = False) -> ReplayTraffic:
    return traffic_of(requests, wait_for_turns=wait)


class Watching:
    """Round robin that notes what it could see at every call."""

    def __init__(self) -> None:
        self._turns = RoundRobin()
        self.seen: list[tuple[str, list[int]]] = []
        self.events: list[FleetEvent] = []
        self.asked: list[RoutingRequest] = []
        self._workers: Workers = ()

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        self._workers = workers
        self.asked.append(request)
        self._note("select")
        return self._turns.select(request, workers)

    def observe(self, event: FleetEvent) -> None:
        self._turns.observe(event)
        self.events.append(event)
        self._note(type(event).__name__)

    def _note(self, what: str) -> None:
        self.seen.append((what, [worker.in_flight for worker in self._workers]))


def test_a_policy_is_told_what_a_router_tells_it_in_that_order() -> None:
    policy = Watching()

    replay(traffic(block(0.0)), policy, ReplayConfig(workers=2))

    assert [what for what, _ in policy.seen[:2]] == ["WorkerJoined", "WorkerJoined"]
    assert [(what, flying) for what, flying in policy.seen[2:] if what != "LoadReported"] == [
        ("select", [0, 0]),
        ("Dispatched", [1, 0]),
        ("FirstToken", [1, 0]),
        ("Finished", [0, 0]),
    ]


def test_the_outcome_holds_what_the_worker_reported() -> None:
    policy = Watching()
    run = replay(traffic(block(0.0), block(5.0, 1100)), policy, ReplayConfig(workers=1))
    first, second = [event for event in policy.events if isinstance(event, Finished)]
    tokens = {event.request_id: event for event in policy.events if isinstance(event, FirstToken)}

    assert (first.outcome.prompt_tokens, first.outcome.cached_tokens, first.outcome.completion_tokens) == (1024, 0, 5)
    assert (second.outcome.prompt_tokens, second.outcome.cached_tokens) == (1100, 1024)
    assert second.outcome.ttft_s == tokens[second.request_id].ttft_s == run.results[1].ttft_s
    assert second.outcome.at_s == 5.0
    assert second.at_s == pytest.approx(5.0 + second.outcome.e2e_s)
    assert second.outcome.key is policy.asked[1].key
    assert second.outcome.ok
    assert run.summary.cached_token_ratio == 1024 / 2124


def test_a_policy_knows_the_prompt_and_never_the_length_of_the_answer() -> None:
    policy = Watching()

    replay(traffic(block(0.0, session="s")), policy, ReplayConfig(workers=1))

    (asked,) = policy.asked
    assert (asked.session, asked.max_output_tokens, asked.key.prompt_tokens) == ("s", None, 1024.0)
    assert len(asked.key.blocks) == 16


def test_load_is_reported_at_every_poll_and_is_in_the_view_before_it_is_told() -> None:
    policy = Watching()

    replay(traffic(block(0.0, 20_000, 400)), policy, ReplayConfig(workers=2, load_poll_s=0.25))

    polls = [event for event in policy.events if isinstance(event, LoadReported)]
    assert {event.at_s for event in polls} >= {0.0, 0.25, 0.5, 0.75}
    assert Counter(event.worker for event in polls)["w1"] == Counter(event.worker for event in polls)["w2"]
    busy = next(event for event in polls if event.at_s == 0.25 and event.worker == "w1")
    assert (busy.load.running, busy.load.capacity_tokens) == (1, 699_103)
    assert policy._workers[0].load is not None


def test_a_front_end_that_reads_slowly_delays_the_engine_and_not_the_dispatch() -> None:
    slow = replace(H200_QWEN3_8B, front_end_request_s=H200_QWEN3_8B.front_end_request_s + 0.25)
    requests = traffic(block(0.0), block(0.0, first=50))
    policy = Watching()

    quick = replay(requests, "round_robin", ReplayConfig(workers=1, spread=False))
    delayed = replay(requests, policy, ReplayConfig(workers=1, spread=False, cost_model=slow))

    assert [event.at_s for event in policy.events if isinstance(event, Dispatched)] == [0.0, 0.0]
    assert quick.results[0].ttft_s == pytest.approx((delayed.results[0].ttft_s or 0) - 0.25)
    assert (delayed.results[1].ttft_s or 0) > 0.5


def test_a_request_longer_than_the_cache_is_refused_and_the_others_are_answered() -> None:
    policy = Watching()

    run = replay(traffic(block(0.0, 20_000), block(1.0)), policy, ReplayConfig(workers=1, capacity_tokens=10_000))

    refused, answered = run.results
    assert "exceed the KV capacity" in refused.error_detail
    assert answered.ok
    assert run.summary.errors == 1
    assert [event.outcome.status for event in policy.events if isinstance(event, Finished)] == [400, 200]
    assert policy.seen[-1] == ("Finished", [0])


def test_a_turn_waits_for_the_one_before_only_when_asked_to() -> None:
    turns = [block(0.0, 60_000, 300, session="s"), block(0.5, 60_000, 300, session="s", turn=1), block(0.6, first=900)]

    together = replay(traffic(*turns), "round_robin", ReplayConfig(workers=1))
    waiting = replay(traffic(*turns, wait=True), "round_robin", ReplayConfig(workers=1))

    assert {one.turn: one.start_s for one in together.results if one.session_id == "s"} == {0: 0.0, 1: 0.5}
    first, second = (one for one in waiting.results if one.session_id == "s")
    assert second.start_s == pytest.approx(first.start_s + first.e2e_s)
    assert {one.start_s for one in waiting.results if one.session_id != "s"} == {0.6}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_results(policy: str) -> None:
    requests = traffic(*(block(index // 3, 600 + 100 * index, 20, first=index % 4 * 50) for index in range(40)))

    first, again = (replay(requests, policy, ReplayConfig(workers=3, seed=7)) for _ in range(2))

    assert first.results == again.results
    assert first.summary == again.summary


REQUESTS = st.lists(
    st.builds(
        block,
        st.sampled_from([0.0, 1.0, 1.5, 30.0]),
        st.integers(1, 3000),
        st.integers(0, 50),
        first=st.integers(0, 3),
        session=st.sampled_from([None, "a", "b"]),
        turn=st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


@given(requests=REQUESTS, policy=st.sampled_from(sorted(POLICIES)), wait=st.booleans(), seed=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_request_is_dispatched_and_ends_once_and_counts_balance(
    requests: list[BlockRequest], policy: str, wait: bool, seed: int
) -> None:
    events: list[FleetEvent] = []
    config = ReplayConfig(workers=2, capacity_tokens=5000, seed=seed, jitter_s=1.0)

    run = replay(traffic(*requests, wait=wait), policy, config, on_event=events.append)

    kinds = Counter(type(event) for event in events)
    assert kinds[Dispatched] == kinds[Finished] == kinds[FirstToken] == len(requests) == len(run.results)
    assert kinds[WorkerJoined] == 2
    times = [event.at_s for event in events]
    assert times == sorted(times)
    assert Counter(one.prompt_tokens for one in run.results) == Counter(one.prompt_tokens for one in requests)
    for one in run.results:
        assert one.ttft_s is not None
        assert 0 < one.ttft_s <= one.e2e_s
        assert one.cached_tokens is not None
        assert 0 <= one.cached_tokens < (one.prompt_tokens or 0)
    assert 0 < busy_share(run) <= 1 + 1e-9


def test_a_prefix_policy_finds_what_round_robin_misses() -> None:
    rng = Random(1)
    requests = traffic(*(block(index * 2.0, 4096, 10, first=100 * rng.randrange(5)) for index in range(60)))

    by_turns, by_prefix = (replay(requests, name, ReplayConfig(workers=4)) for name in ("round_robin", "prefix_match"))

    assert (by_prefix.summary.cached_token_ratio or 0) > 0.85
    assert (by_turns.summary.cached_token_ratio or 0) < 0.75


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="Did you mean 'round_robin'"):
        replay(traffic(block(0.0)), "round_robbin", ReplayConfig())


def test_exact_mode_tells_what_each_cache_holds_and_the_other_mode_tells_nothing() -> None:
    requests = traffic(block(0.0, 2048), block(10.0, 2048))
    exact, approximate = Watching(), Watching()

    replay(requests, exact, ReplayConfig(workers=2, exact=True))
    replay(requests, approximate, ReplayConfig(workers=2))

    assert [one.known_match_tokens for one in exact.asked] == [{"w1": 0, "w2": 0}, {"w1": 2048, "w2": 0}]
    assert [one.known_match_tokens for one in approximate.asked] == [None, None]
    assert [one.at_s for one in exact.asked] == [0.0, 10.0]
