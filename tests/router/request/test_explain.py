"""Explaining a request: in its headers, while it runs, and afterwards with every candidate and what came of it."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from outcomes import decision, key, outcome
from policy_fakes import View
from router.experiment.choice import Choice
from router.policies.explains import candidates_of
from router.policies.prefix_match import PrefixMatch, PrefixMatchConfig
from router.policies.round_robin import RoundRobin
from router.records import Dispatched, RoutingRequest
from router.request.explain import Explainer, explain_headers
from router.request.explain_routes import explanation
from router.telemetry.recent_requests import ExplainConfig, RecentRequests
from router.types import Candidate, Reason, RequestId, WorkerId
from router_fakes import answer, config, running, upstream


class Weighing(RoundRobin):
    """Round robin that claims to weigh."""

    def candidates(self, request: RoutingRequest, workers: Any) -> list[Candidate]:
        return [
            Candidate(worker=worker.id, match_tokens=64.0 * place, terms_s=(("prefill", 0.25), ("wait", 0.5)))
            for place, worker in enumerate(workers)
        ]


VIEWS = [View(WorkerId("w0"), 3), View(WorkerId("w1"))]


def decided(
    explainer: Explainer, policy: RoundRobin, request_id: str, *, asked: bool = False, ttft_s: float | None = 0.75,
    at_s: float = 0.0,
) -> None:  # fmt: skip
    request = RoutingRequest(request_id=RequestId(request_id), endpoint="/generate", key=key(1), at_s=at_s)
    made = decision("w1", reason=Reason.TURN, expected_ttft_s=ttft_s)
    explainer.decided(
        request, Choice(decision=made, policy=policy, policy_name="weighing", workers=VIEWS), asked=asked
    )


def test_every_candidate_is_shown_term_by_term_and_then_what_happened() -> None:
    store = RecentRequests(ExplainConfig())
    decided(Explainer(ExplainConfig(), store), Weighing(), "a")
    running_entry = store.find("a")
    assert running_entry is not None
    assert explanation(running_entry)["state"] == "running"
    store.ended(outcome("a", decision=decision("w1"), cached_tokens=60))

    said = explanation(running_entry)

    assert said["state"] == "ended"
    attempt = said["attempts"][0]
    assert (attempt["worker"], attempt["reason"], attempt["expected_ttft_s"]) == ("w1", "turn", 0.75)
    assert attempt["candidates"] == [
        {"worker": "w0", "chosen": False, "in_flight": 3, "waiting": None, "match_tokens": 0,
         "terms_s": {"prefill": 0.25, "wait": 0.5}, "cost_s": 0.75},
        {"worker": "w1", "chosen": True, "in_flight": 0, "waiting": None, "match_tokens": 64,
         "terms_s": {"prefill": 0.25, "wait": 0.5}, "cost_s": 0.75},
    ]  # fmt: skip
    assert (said["outcome"]["cached_tokens"], said["outcome"]["ttft_s"]) == (60, 0.25)


def test_a_policy_that_weighs_nothing_is_not_credited_with_a_prediction() -> None:
    store = RecentRequests(ExplainConfig())
    decided(Explainer(ExplainConfig(), store), RoundRobin(), "a", ttft_s=None)
    entry = store.find("a")
    assert entry is not None

    attempt = explanation(entry)["attempts"][0]

    assert attempt["expected_match_tokens"] is None
    assert [(each["match_tokens"], each["cost_s"]) for each in attempt["candidates"]] == [(None, None)] * 2


def test_weighing_unasked_is_bounded_in_time_and_asking_is_not() -> None:
    store = RecentRequests(ExplainConfig())
    explainer = Explainer(ExplainConfig(weigh_per_s=10), store)
    for number in range(100):
        decided(explainer, Weighing(), f"unasked {number}")
    assert len(store) == 10
    for number in range(100):
        decided(explainer, Weighing(), f"later {number}", at_s=0.5)
    assert len(store) == 15
    for number in range(20):
        decided(explainer, Weighing(), f"asked {number}", asked=True, at_s=0.5)

    assert len(store) == 35


def test_a_policy_that_cannot_explain_itself_costs_no_request(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RoundRobin):
        def candidates(self, request: RoutingRequest, workers: Any) -> list[Candidate]:
            raise IndexError

    store = RecentRequests(ExplainConfig())
    decided(Explainer(ExplainConfig(), store), Broken(), "a")

    assert store.find("a") is None
    assert "could not weigh request a" in caplog.text


def test_headers_say_worker_reason_match_and_expected_ttft() -> None:
    headers = dict(explain_headers(decision("w1", match_tokens=127.6, expected_ttft_s=0.25)))

    assert headers == {
        b"x-trieway-worker": b"w1", b"x-trieway-reason": b"prefix", b"x-trieway-match-tokens": b"128",
        b"x-trieway-expected-ttft-s": b"0.2500",
    }  # fmt: skip
    assert b"x-trieway-expected-ttft-s" not in dict(explain_headers(decision("w1")))


def test_prefix_match_says_what_it_sees_on_every_worker() -> None:
    policy = PrefixMatch(PrefixMatchConfig(), Random(1))
    request = RoutingRequest(request_id=RequestId("a"), endpoint="/generate", key=key(1, 2, 3))
    policy.observe(Dispatched(request=request, decision=decision("w1"), at_s=0.0))

    found = candidates_of(policy, request, VIEWS)

    assert found is not None
    assert [(each.worker, each.match_tokens, each.terms_s) for each in found] == [("w0", 0.0, ()), ("w1", 192.0, ())]


async def test_it_can_be_asked_over_http(chat: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 3}}
    async with upstream(answer({"id": "x", "choices": [], "usage": usage})) as one, upstream() as two:
        async with running(config(one.url, two.url, policy="expected_ttft")) as router:
            sent = await router.client.post(
                "/v1/chat/completions", json=chat, headers={"x-request-id": "a/b c", "x-trieway-explain": "1"}
            )
            found = (await router.client.get("/explain/a%2Fb%20c")).json()
            last = (await router.client.get("/explain/last")).json()
            missing = await router.client.get("/explain/nobody")

    assert found["outcome"]["worker"] == sent.headers["x-trieway-worker"]
    assert "x-trieway-expected-ttft-s" in sent.headers
    assert {each["worker"] for each in found["attempts"][0]["candidates"]} == {"w1", "w2"}
    assert all(each["cost_s"] is not None for each in found["attempts"][0]["candidates"])
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "request_not_found"
    assert "x-request-id" in missing.json()["error"]["message"]
    assert last == found
