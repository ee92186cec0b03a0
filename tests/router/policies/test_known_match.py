"""What workers say themselves goes before what a policy's own index estimates, worker by worker."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from policy_fakes import View
from router.policies.expected_ttft import ExpectedTtft, ExpectedTtftConfig
from router.policies.known_match import match_tokens
from router.policies.prefix_match import PrefixMatch, PrefixMatchConfig
from router.policies.remembers import index_blocks_of
from router.policies.round_robin import RoundRobin
from router.records import Decision, Dispatched, RoutingRequest
from router.types import PromptKey, Reason, RequestId, WorkerId, WorkerJoined

A, B, C = WorkerId("a"), WorkerId("b"), WorkerId("c")


WORKERS = [View(A), View(B), View(C)]
KEY = PromptKey(blocks=(1, 2, 3), unit_tokens=64.0, prompt_tokens=200.0)
ASKED = RoutingRequest(request_id=RequestId("r"), endpoint="/generate", key=KEY)


def test_a_worker_that_tells_is_believed_and_one_that_does_not_is_estimated() -> None:
    told = replace(ASKED, known_match_tokens={A: 0, B: 150})

    assert match_tokens(ASKED, WORKERS, [3, 0, 1]) == [192.0, 0.0, 64.0]
    assert match_tokens(told, WORKERS, [3, 0, 1]) == [0.0, 150.0, 64.0]


def test_prefix_match_goes_where_the_prefix_is_known_to_be() -> None:
    policy = PrefixMatch(PrefixMatchConfig(), Random(1))
    sent = Decision(worker=A, reason=Reason.NO_PREFIX)
    policy.observe(Dispatched(request=ASKED, decision=sent, at_s=0.0))

    assert policy.select(ASKED, WORKERS).worker == A
    told = policy.select(replace(ASKED, known_match_tokens={A: 0, B: 150}), WORKERS)
    assert (told.worker, told.match_tokens) == (B, 150.0)


def test_expected_ttft_prices_what_is_known_to_be_there() -> None:
    policy = ExpectedTtft(ExpectedTtftConfig(), Random(1))
    big = replace(ASKED, key=PromptKey(blocks=KEY.blocks, unit_tokens=2000.0, prompt_tokens=8000.0))
    for worker in WORKERS:
        policy.observe(WorkerJoined(worker=worker.id, at_s=0.0))
    told = replace(big, known_match_tokens={A: 0, B: 15_000, C: 8_000}, known_prompt_tokens=16_000)
    decision = policy.select(told, WORKERS)
    prices = {each.worker: dict(each.terms_s)["prefill"] for each in policy.candidates(told, WORKERS)}
    estimated = dict(policy.candidates(big, WORKERS)[0].terms_s)["prefill"]

    assert (decision.worker, decision.match_tokens) == (B, 15_000)
    assert prices[B] < prices[C] < prices[A]
    assert prices[A] > 1.9 * estimated  # twice the tokens that the key promised


def test_expected_ttft_books_what_is_known_to_be_there() -> None:
    told = replace(ASKED, known_match_tokens={A: 15_000}, known_prompt_tokens=16_000)
    waits: list[float] = []
    for asked in (told, replace(told, known_match_tokens=None)):
        policy = ExpectedTtft(ExpectedTtftConfig(), Random(1))
        policy.observe(WorkerJoined(worker=A, at_s=0.0))
        policy.observe(Dispatched(request=asked, decision=Decision(worker=A, reason=Reason.LOWEST_COST), at_s=0.0))
        later = replace(ASKED, request_id=RequestId("s"))
        waits.append(dict(policy.candidates(later, WORKERS[:1])[0].terms_s)["wait"])

    assert waits[0] < 0.5 * waits[1]


def test_what_a_policy_remembers_is_told_and_nothing_by_one_without_an_index() -> None:
    policy = PrefixMatch(PrefixMatchConfig(), Random(1))
    policy.observe(Dispatched(request=ASKED, decision=Decision(worker=A, reason=Reason.NO_PREFIX), at_s=0.0))

    assert index_blocks_of(policy) == {A: 3}
    assert index_blocks_of(RoundRobin()) == {}
