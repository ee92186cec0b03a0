"""What expected_ttft chooses and learns, and that no stream of events, however absurd, corrupts it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import replace
from math import isfinite
from operator import itemgetter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_fakes import View
from router.policies.expected_ttft import TERMS, ExpectedTtft, ExpectedTtftConfig
from router.policies.expected_ttft_rate import PrefillRate
from router.prefix.block_sizes import units_until
from router.records import Decision, Dispatched, Finished, FirstToken, FleetEvent, Outcome, RoutingRequest
from router.types import (
    AttemptFailed,
    CacheCleared,
    LoadReport,
    LoadReported,
    PromptKey,
    Reason,
    RequestId,
    WorkerChanged,
    WorkerId,
    WorkerJoined,
    WorkerLeft,
)

BLOCK = 512.0


def fleet(count: int) -> list[View]:
    return [View(WorkerId(f"w{i}")) for i in range(count)]


def chained(*blocks: int) -> tuple[int, ...]:
    hashes, seed = [], 0
    for block in blocks:
        seed = hash((seed, block))
        hashes.append(seed)
    return tuple(hashes)


def request(name: str, blocks: tuple[int, ...], at_s: float = 0.0, model: str | None = None) -> RoutingRequest:
    key = PromptKey(blocks=blocks, unit_tokens=BLOCK, prompt_tokens=max(1.0, BLOCK * units_until(len(blocks))))
    return RoutingRequest(
        request_id=RequestId(name), endpoint="/generate", key=key, at_s=at_s, stream=True, model=model
    )


def build(seed: int = 1, **changes: float) -> ExpectedTtft:
    return ExpectedTtft(dataclasses.replace(ExpectedTtftConfig(), **changes), Random(seed))


def send(policy: ExpectedTtft, asked: RoutingRequest, workers: list[View]) -> WorkerId:
    decision = policy.select(asked, workers)
    policy.observe(Dispatched(request=asked, decision=decision, at_s=asked.at_s))
    return decision.worker


def finish(
    policy: ExpectedTtft,
    asked: RoutingRequest,
    worker: WorkerId,
    *,
    first_s: float,
    end_s: float,
    cached_tokens: int | None = None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = 100,
) -> None:
    policy.observe(
        FirstToken(request_id=asked.request_id, worker=worker, ttft_s=first_s - asked.at_s, at_s=first_s)
    )
    policy.observe(
        Finished(
            request_id=asked.request_id,
            worker=worker,
            at_s=end_s,
            outcome=Outcome(
                request_id=asked.request_id,
                endpoint="/generate",
                at_s=asked.at_s,
                status=200,
                e2e_s=end_s - asked.at_s,
                prompt_tokens=prompt_tokens,
                cached_tokens=cached_tokens,
                completion_tokens=completion_tokens,
            ),
        )
    )


def test_a_burst_spreads_before_any_worker_reports() -> None:
    policy = build()
    chosen = Counter(send(policy, request(f"r{i}", chained(i, i, i)), fleet(4)) for i in range(8))

    assert set(chosen.values()) == {2}


def test_an_idle_fleet_is_used_evenly_though_learned_rates_differ_a_little() -> None:
    policy, counts = build(), Counter[WorkerId]()
    for i in range(80):
        one = request(f"r{i}", chained(1000 + i, i), at_s=10.0 * i)
        worker = send(policy, one, fleet(4))
        finish(policy, one, worker, first_s=10.0 * i + 0.004 * (1 + 0.02 * (i % 3)), end_s=10.0 * i + 1.0)
        counts[worker] += 1

    assert min(counts.values()) >= 8


def test_a_worker_nothing_is_known_of_is_taken_to_be_like_the_others() -> None:
    """The fleet is much faster than where learning starts: without this the newcomers would never be tried."""
    policy, seen = build(), set[WorkerId]()
    for i in range(40):
        one = request(f"r{i}", chained(1000 + i, i), at_s=10.0 * i)
        worker = send(policy, one, fleet(2 if i < 20 else 4))
        finish(policy, one, worker, first_s=10.0 * i + 0.002, end_s=10.0 * i + 1.0)
        seen.add(worker)

    assert len(seen) == 4


def test_a_long_prefix_is_followed_when_its_worker_is_free() -> None:
    policy = build()
    first = request("first", chained(*range(20)))
    home = send(policy, first, fleet(4))
    finish(policy, first, home, first_s=1.0, end_s=2.0)

    assert policy.select(request("next", chained(*range(22)), at_s=3.0), fleet(4)).worker == home


def test_a_prefix_is_left_when_waiting_costs_more_than_it_saves() -> None:
    policy = build()
    first = request("first", chained(0, 1))
    home = send(policy, first, fleet(2))
    finish(policy, first, home, first_s=0.1, end_s=0.2)
    long = request("long", chained(0, *range(100, 260)), at_s=1.0)
    policy.observe(
        Dispatched(request=long, decision=Decision(worker=home, reason=Reason.RANDOM), at_s=1.0)
    )

    assert policy.select(request("short", chained(0, 1, 2), at_s=1.0), fleet(2)).worker != home


def test_booked_work_is_served_as_time_passes_but_not_beyond_what_can_be_true() -> None:
    policy = build()
    for i in range(6):
        asked = request(f"r{i}", chained(i, *range(30)))
        policy.observe(
            Dispatched(request=asked, decision=Decision(worker=WorkerId("w0"), reason=Reason.RANDOM), at_s=0.0)
        )
    waits = [
        dict(policy.candidates(request("q", chained(9), at_s=at_s), fleet(1))[0].terms_s)["wait"]
        for at_s in (0.0, 0.2, 0.4, 1000.0)
    ]

    assert waits[0] - waits[1] == pytest.approx(0.2)
    assert waits[1] - waits[2] == pytest.approx(0.2)
    assert waits[3] > waits[0] / 2  # not one first token in a thousand seconds: the queue is still there


def test_answers_that_are_not_streamed_do_not_count_as_prefill() -> None:
    policy, workers = build(), fleet(1)
    for number in range(20):  # one at a time: 30 ms of prefill, then 20 s of decoding before the first byte
        asked = replace(request(f"r{number}", chained(number), at_s=30.0 * number), stream=False)
        home = send(policy, asked, workers)
        finish(policy, asked, home, first_s=30.0 * number + 20.0, end_s=30.0 * number + 20.0)
    busy = replace(request("busy", chained(100), at_s=700.0), stream=False)
    send(policy, busy, workers)
    send(policy, replace(busy, request_id=RequestId("b2"), at_s=702.0), workers)
    terms = dict(policy.candidates(request("q", chained(*range(10)), at_s=702.0), workers)[0].terms_s)

    assert terms["wait"] < 0.1
    assert terms["prefill"] < 0.3
    assert terms["decodes"] > 0.0  # the first of them is known to run


def test_a_hot_prefix_spreads_only_as_far_as_its_load_needs() -> None:
    hot = tuple(range(20))

    def used(gap_s: float) -> int:
        policy, workers, at_s, seen = build(), fleet(8), 0.0, Counter[WorkerId]()
        free_s = {worker.id: 0.0 for worker in workers}
        running: list[tuple[float, RoutingRequest, WorkerId]] = []
        for i in range(200):
            at_s += gap_s
            for done in sorted((one for one in running if one[0] <= at_s), key=itemgetter(0)):
                running.remove(done)
                finish(policy, done[1], done[2], first_s=done[0], end_s=done[0], cached_tokens=None)
            asked = request(f"r{i}", chained(*hot, 1000 + i), at_s=at_s)
            choice = send(policy, asked, workers)
            took_s = 0.05 if seen[choice] else 0.6
            seen[choice] += 1
            free_s[choice] = max(free_s[choice], at_s) + took_s
            running.append((free_s[choice], asked, choice))
        return len(seen)

    assert used(1.0) == 1
    assert 1 < used(0.02) < 8


def test_a_worker_half_as_fast_gets_its_share() -> None:
    policy, workers, at_s = build(), fleet(2), 0.0
    speed = {"w0": 1.0, "w1": 0.5}
    free_s = {"w0": 0.0, "w1": 0.0}
    running: list[tuple[float, RoutingRequest, WorkerId]] = []
    rate, counts = PrefillRate(), Counter[WorkerId]()
    rng = Random(3)
    for i in range(600):
        asked = request(f"r{i}", chained(*(1000 * i + j for j in range(rng.randint(4, 24)))), at_s=at_s)
        choice = send(policy, asked, workers)
        work_s = rate.seconds(asked.key.prompt_tokens, 0.0) / speed[choice]
        free_s[choice] = max(free_s[choice], at_s) + work_s
        running.append((free_s[choice], asked, choice))
        if i >= 200:
            counts[choice] += 1
        at_s += rng.expovariate(1 / 0.25)
        for done in sorted((one for one in running if one[0] <= at_s), key=itemgetter(0)):
            running.remove(done)
            finish(policy, done[1], done[2], first_s=done[0], end_s=done[0], cached_tokens=0)

    assert 1.5 < counts[WorkerId("w0")] / counts[WorkerId("w1")] < 3.2


def test_over_prediction_forgets_what_the_worker_has_evicted() -> None:
    policy, workers = build(), fleet(1)
    old, older = request("old", chained(*range(10))), request("older", chained(*range(50, 60)))
    for number, asked in enumerate((older, old)):
        home = send(policy, asked, workers)
        finish(policy, asked, home, first_s=number + 0.1, end_s=number + 0.2, cached_tokens=0)
    hit = request("hit", chained(*range(10)), at_s=3.0)
    send(policy, hit, workers)
    finish(policy, hit, home, first_s=3.1, end_s=3.2, cached_tokens=5119)
    wrong = request("wrong", chained(*range(10)), at_s=4.0)
    send(policy, wrong, workers)
    finish(policy, wrong, home, first_s=4.1, end_s=4.2, cached_tokens=1024)

    assert policy.select(request("q", chained(*range(50, 60)), at_s=5.0), workers).match_blocks == 0
    assert policy.select(request("q", chained(*range(10)), at_s=5.0), workers).match_blocks == 10


def test_a_worker_that_never_reports_a_cached_token_is_not_believed_about_zero() -> None:
    policy, workers = build(), fleet(1)
    for number in range(3):
        asked = request(f"r{number}", chained(*range(10)), at_s=float(number))
        home = send(policy, asked, workers)
        finish(policy, asked, home, first_s=number + 0.1, end_s=number + 0.2, cached_tokens=0)

    assert policy.select(request("q", chained(*range(10)), at_s=9.0), workers).match_blocks == 10


def test_tokens_per_block_are_learned_per_model() -> None:
    policy, workers = build(), fleet(1)
    for number in range(40):
        asked = request(f"r{number}", chained(*range(10)), at_s=float(number), model="dense")
        home = send(policy, asked, workers)
        finish(policy, asked, home, first_s=number + 0.1, end_s=number + 0.2, prompt_tokens=10_240)
    dense = policy.select(request("q", chained(*range(10)), model="dense"), workers)
    other = policy.select(request("q", chained(*range(10)), model="other"), workers)

    assert dense.match_tokens == pytest.approx(10_240, rel=0.01)
    assert other.match_tokens == 5120


def test_the_index_forgets_when_the_worker_does() -> None:
    policy, workers = build(capacity_tokens=10**6), fleet(1)
    report = LoadReport(
        at_s=0.0, running=0, waiting=0, waiting_uncached_tokens=0, used_tokens=0, capacity_tokens=20_480
    )
    policy.observe(WorkerJoined(worker=WorkerId("w0"), at_s=0.0))
    policy.observe(LoadReported(worker=WorkerId("w0"), load=report, at_s=0.0))
    for number in range(8):
        asked = request(f"r{number}", chained(*range(100 * number, 100 * number + 10)), at_s=float(number))
        home = send(policy, asked, workers)
        finish(policy, asked, home, first_s=number + 0.1, end_s=number + 0.2)

    assert policy.select(request("q", chained(*range(10))), workers).match_blocks == 0
    assert policy.select(request("q", chained(*range(700, 710))), workers).match_blocks == 10


@pytest.mark.parametrize("event", [WorkerLeft, CacheCleared])
def test_a_worker_that_left_or_lost_its_cache_is_forgotten(event: type[WorkerLeft]) -> None:
    policy, workers = build(), fleet(2)
    asked = request("r", chained(*range(10)))
    home = send(policy, asked, workers)
    policy.observe(event(worker=home, at_s=1.0))

    assert policy.select(asked, [View(home)]).match_blocks == 0
    finish(policy, asked, home, first_s=2.0, end_s=3.0)  # late: harmless


def test_a_failed_attempt_leaves_nothing_booked() -> None:
    policy, workers = build(), fleet(1)
    asked = request("r", chained(*range(40)))
    before = dict(policy.candidates(asked, workers)[0].terms_s)
    send(policy, asked, workers)
    policy.observe(AttemptFailed(request_id=asked.request_id, worker=WorkerId("w0"), at_s=0.0))
    after = dict(policy.candidates(asked, workers)[0].terms_s)

    assert after == before


def test_a_worker_that_reports_idleness_for_long_has_nothing_booked() -> None:
    policy, workers = build(), fleet(1)
    send(policy, request("lost", chained(*range(40))), workers)
    booked = []
    for at_s in (5.0, 30.0, 36.0):
        idle = LoadReport(
            at_s=at_s, running=0, waiting=0, waiting_uncached_tokens=None, used_tokens=0, capacity_tokens=400_000
        )
        policy.observe(LoadReported(worker=WorkerId("w0"), load=idle, at_s=at_s))
        booked.append(len(policy._books[WorkerId("w0")].queue))

    assert booked == [1, 1, 0]
    finish(policy, request("lost", chained(*range(40))), WorkerId("w0"), first_s=40.0, end_s=41.0)  # late: harmless


def test_work_of_others_that_a_worker_reports_counts_and_passes() -> None:
    policy, workers = build(), fleet(2)
    policy.observe(WorkerJoined(worker=WorkerId("w0"), at_s=0.0))
    busy = LoadReport(
        at_s=0.0, running=3, waiting=9, waiting_uncached_tokens=100_000, used_tokens=0, capacity_tokens=400_000
    )
    policy.observe(LoadReported(worker=WorkerId("w0"), load=busy, at_s=0.0))
    asked = request("q", chained(1), at_s=0.0)

    assert policy.select(asked, workers).worker == "w1"
    later = dict(policy.candidates(replace(asked, at_s=60.0), workers)[0].terms_s)
    assert later["wait"] == 0.0


def test_a_report_that_nothing_waits_takes_off_what_was_booked_too_long() -> None:
    policy, workers = build(), fleet(1)
    for number in range(20):
        send(policy, request(f"r{number}", chained(*range(100 * number, 100 * number + 20))), workers)
    asked = request("q", chained(1), at_s=2.0)
    before = dict(policy.candidates(asked, workers)[0].terms_s)["wait"]
    report = LoadReport(
        at_s=2.0, running=20, waiting=0, waiting_uncached_tokens=0, used_tokens=0, capacity_tokens=400_000
    )
    policy.observe(LoadReported(worker=WorkerId("w0"), load=report, at_s=2.0))

    assert before > 5.0
    assert dict(policy.candidates(asked, workers)[0].terms_s)["wait"] < 1.5


def test_decode_steps_are_learned_from_streamed_answers() -> None:
    policy, workers = build(), fleet(1)
    for number in range(400):
        asked = request(f"r{number}", chained(number), at_s=10.0 * number)
        home = send(policy, asked, workers)
        first_s = asked.at_s + 0.03
        finish(policy, asked, home, first_s=first_s, end_s=first_s + 3.0, completion_tokens=100)

    assert policy._books[WorkerId("w0")].answer_s == pytest.approx(3.0, rel=0.15)
    assert policy.index_blocks() == {"w0": 400}
    assert policy.images()[WorkerId("w0")].size_blocks == 400


def test_a_prompt_that_the_worker_kept_longer_than_we_thought_makes_its_cache_larger() -> None:
    policy, workers = build(capacity_tokens=8192), fleet(1)
    for number in range(60):  # five prompts of 2,048 tokens in turn, all of them still there
        asked = request(f"r{number}", chained(*(10 * (number % 5) + i for i in range(4))), at_s=float(number))
        home = send(policy, asked, workers)
        cached = 2047 if number >= 5 else 0
        finish(policy, asked, home, first_s=number + 0.1, end_s=number + 0.2, cached_tokens=cached)

    assert policy._books[WorkerId("w0")].cache.image.capacity_tokens > 10_240
    assert policy.select(request("q", chained(0, 1, 2, 3), at_s=70.0), workers).match_blocks == 4


def test_what_requests_in_flight_bring_counts_beside_what_a_worker_says_it_holds() -> None:
    """The next turn of a session comes while the one before still waits: its prompt is not cached yet, but will be."""
    policy, workers = build(), fleet(2)
    first = replace(request("first", chained(*range(40))), known_match_tokens={WorkerId("w0"): 0, WorkerId("w1"): 0})
    home = send(policy, first, workers)
    told = {WorkerId("w0"): 0, WorkerId("w1"): 0}
    following = replace(request("next", chained(*range(42)), at_s=0.1), known_match_tokens=told)

    decision = policy.select(following, workers)

    assert decision.worker == home
    assert decision.match_tokens == BLOCK * units_until(40)
    done = replace(following, known_match_tokens={**told, home: 130 * 512})
    assert policy.select(done, workers).match_tokens == 130 * BLOCK  # it says more


def test_what_is_explained_is_what_decides() -> None:
    policy, workers = build(), fleet(4)
    for i in range(20):
        asked = request(f"r{i}", chained(i % 3, i % 5, i), at_s=i * 0.01)
        candidates = policy.candidates(asked, workers)
        decision = policy.select(asked, workers)

        assert {name for name, _ in candidates[0].terms_s} == set(TERMS)
        chosen = next(each for each in candidates if each.worker == decision.worker)
        assert chosen.cost_s <= min(each.cost_s for each in candidates) + 1e-6
        assert chosen.match_tokens == decision.match_tokens
        policy.observe(Dispatched(request=asked, decision=decision, at_s=asked.at_s))


# -- any stream of events -----------------------------------------------------------------------------------------

times = st.one_of(
    st.floats(0, 100), st.sampled_from([-1e9, 0.0, 1e12, float("nan"), float("inf"), float("-inf")])
)
counts = st.one_of(st.none(), st.integers(-5, 20_000), st.sampled_from([0, -1, 10**18]))
ids = st.integers(0, 5).map(lambda number: RequestId(f"r{number}"))
worker_ids = st.sampled_from([WorkerId(f"w{i}") for i in range(4)])
keys = st.builds(
    PromptKey,
    blocks=st.lists(st.integers(0, 2), max_size=6).map(lambda blocks: chained(*blocks)),
    unit_tokens=st.sampled_from([512.0, 64.0, 0.5]),
    prompt_tokens=st.sampled_from([0.0, 1.0, 700.0, 3072.0, 1e7]),
)
requests = st.builds(
    RoutingRequest,
    request_id=ids,
    endpoint=st.just("/generate"),
    key=keys,
    at_s=times,
    stream=st.booleans(),
    model=st.sampled_from([None, "a", "b"]),
    max_output_tokens=counts,
    known_match_tokens=st.none() | st.dictionaries(worker_ids, st.sampled_from([-5, 0, 600, 10**18]), max_size=4),
    known_prompt_tokens=st.sampled_from([None, 0, 1, 5000, 10**12]),
)
reports = st.builds(
    LoadReport,
    at_s=times,
    running=st.integers(0, 3),
    waiting=st.integers(0, 3),
    waiting_uncached_tokens=counts,
    used_tokens=st.integers(0, 10**6),
    capacity_tokens=st.sampled_from([0, -1, 5000, 400_000, 10**18]),
)
outcomes = st.builds(
    Outcome,
    request_id=ids,
    endpoint=st.just("/generate"),
    at_s=times,
    status=st.sampled_from([200, 503]),
    e2e_s=times,
    prompt_tokens=counts,
    cached_tokens=counts,
    completion_tokens=counts,
)
events: st.SearchStrategy[FleetEvent] = st.one_of(
    st.builds(
        WorkerChanged, worker=worker_ids, before=st.just("ready"), after=st.just("gone"), why=st.just(""), at_s=times
    ),
    st.builds(WorkerJoined, worker=worker_ids, at_s=times),
    st.builds(WorkerLeft, worker=worker_ids, at_s=times),
    st.builds(CacheCleared, worker=worker_ids, at_s=times),
    st.builds(
        Dispatched,
        request=requests,
        decision=st.builds(Decision, worker=worker_ids, reason=st.just(Reason.RANDOM)),
        at_s=times,
    ),
    st.builds(FirstToken, request_id=ids, worker=worker_ids, ttft_s=times, at_s=times),
    st.builds(AttemptFailed, request_id=ids, worker=worker_ids, at_s=times),
    st.builds(Finished, request_id=ids, worker=worker_ids, outcome=outcomes, at_s=times),
    st.builds(LoadReported, worker=worker_ids, load=reports, at_s=times),
)


@given(st.lists(events, max_size=60), requests)
@settings(max_examples=150)
def test_no_stream_of_events_corrupts_it(stream: list[FleetEvent], asked: RoutingRequest) -> None:
    policy, workers = build(capacity_tokens=4096), fleet(4)
    for event in stream:
        policy.observe(event)

    for candidate in policy.candidates(asked, workers):
        assert all(isfinite(value) and value >= 0.0 for _, value in candidate.terms_s), candidate
        most = max(asked.key.prompt_tokens, 1.0) * 16
        assert 0.0 <= candidate.match_tokens <= max(most, asked.known_prompt_tokens or 0)
    for book in policy._books.values():
        image = book.cache.image
        stored = [*image._recent.values(), *(entry for entry in image._held if entry.stored)]
        assert image.size_tokens == pytest.approx(sum(entry.tokens for entry in stored))
        assert image.size_tokens <= image.capacity_tokens or not image._recent
        assert all(entry.held or entry.used_at in image._recent for entry in image._owner.values())
        assert all(0.0 < cost < 1.0 for cost in book.rate.costs)
        booked = {*book.queue, *book.running}
        assert booked == {name for name, known in policy._where.items() if policy._books.get(known.worker) is book}


@given(st.lists(events, max_size=40))
@settings(max_examples=50)
def test_once_everything_has_ended_nothing_is_booked(stream: list[FleetEvent]) -> None:
    policy = build()
    for event in stream:
        policy.observe(event)
    for name in list(policy._where):
        policy.observe(AttemptFailed(request_id=name, worker=policy._where[name].worker, at_s=1.0))

    for book in policy._books.values():
        assert not book.queue
        assert not book.running
        assert book.answers_tokens == 0.0
        assert book.cache.image.held_tokens == pytest.approx(0.0)


def test_a_wait_longer_than_the_room_asks_for_the_request_to_be_held() -> None:
    policy, workers = build(room_s=0.5), fleet(1)
    first = policy.select(request("a", chained(*range(40)), 1.0), workers)
    send(policy, request("a", chained(*range(40)), 1.0), workers)
    second = policy.select(request("b", chained(99), 1.0), workers)

    assert (first.hold, first.expected_wait_s) == (False, 0.0)
    assert second.hold
    assert second.expected_wait_s is not None
    assert second.expected_ttft_s is not None
    assert 0.5 < second.expected_wait_s < second.expected_ttft_s
    assert not build(room_s=0.0).select(request("b", chained(99), 1.0), workers).hold


@pytest.mark.parametrize(("stream", "waiting", "hold"), [(True, 0, True), (False, 0, False), (False, 3, True)])
def test_answers_that_come_whole_hold_others_only_where_the_worker_says_that_requests_wait(
    *, stream: bool, waiting: int, hold: bool
) -> None:
    """Nothing shows when their prompts were read: a worker that is faster than is known would be kept idle."""
    policy, workers = build(room_s=0.5), fleet(1)
    send(policy, replace(request("a", chained(*range(400)), 1.0), stream=stream), workers)
    load = LoadReport(
        at_s=1.1, running=1, waiting=waiting, waiting_uncached_tokens=None, used_tokens=0, capacity_tokens=10**7
    )
    policy.observe(LoadReported(worker=workers[0].id, load=load, at_s=1.1))

    assert policy.select(request("b", chained(99), 1.1), workers).hold is hold


@pytest.mark.parametrize("told", [True, False])
def test_a_wait_for_memory_holds_a_request_only_where_the_worker_has_told_how_much_it_has(*, told: bool) -> None:
    policy, workers = build(capacity_tokens=100_000, room_s=0.1), fleet(1)
    policy.observe(WorkerJoined(worker=workers[0].id, at_s=0.0))
    for name in range(4):
        asked = request(f"r{name}", chained(*range(100 * name, 100 * name + 40)), 1.0 + name)
        worker = send(policy, asked, workers)
        policy.observe(FirstToken(request_id=asked.request_id, worker=worker, ttft_s=0.5, at_s=1.5 + name))
    if told:
        load = LoadReport(
            at_s=5.0, running=4, waiting=0, waiting_uncached_tokens=0, used_tokens=80_000, capacity_tokens=100_000
        )
        policy.observe(LoadReported(worker=workers[0].id, load=load, at_s=5.0))
    decision = policy.select(request("last", chained(*range(900, 940)), 5.0), workers)

    assert decision.expected_wait_s is not None
    assert decision.expected_wait_s > 0.1
    assert decision.hold is told
