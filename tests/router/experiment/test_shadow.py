"""Shadows: asked about everything, told everything, never followed, and within their budget of time."""

from __future__ import annotations

from random import Random

import pytest

from outcomes import decision, key, outcome
from policy_fakes import View
from router.errors import ConfigError
from router.experiment.shadow import Shadow, ShadowConfig, shadows_of
from router.experiment.steering import Steering
from router.policies import Policy, PolicyConfigs
from router.policies.round_robin import RoundRobin
from router.records import Decision, Dispatched, Finished, FleetEvent, RoutingRequest
from router.types import RequestId, WorkerId, Workers


class Timer:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Fixed:
    """Always decides the same, and takes `cost_s` on the timer for it."""

    def __init__(self, worker: str, timer: Timer, cost_s: float = 0.0, **fields: float) -> None:
        self._decision = decision(worker, **fields)
        self._timer = timer
        self._cost_s = cost_s
        self.heard: list[FleetEvent] = []

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        self._timer.now_s += self._cost_s
        return self._decision

    def observe(self, event: FleetEvent) -> None:
        self.heard.append(event)


VIEWS = [View(WorkerId("w0")), View(WorkerId("w1"))]


def request(number: int) -> RoutingRequest:
    return RoutingRequest(request_id=RequestId(f"r{number}"), endpoint="/generate", key=key(1))


def send(steering: Steering, number: int, **ended: object) -> WorkerId:
    asked = request(number)
    choice = steering.choose(asked, VIEWS)
    steering.shadow(asked, VIEWS, choice.decision)
    steering.observe(Dispatched(request=asked, decision=choice.decision, at_s=0.0))
    worker = choice.decision.worker
    steering.observe(
        Finished(request_id=asked.request_id, worker=worker, outcome=outcome(asked.request_id, **ended), at_s=1.0)
    )
    return worker


def test_a_shadow_is_asked_and_told_and_changes_nothing() -> None:
    timer = Timer()
    policy = Fixed("w0", timer, match_tokens=100.0, expected_ttft_s=0.5)
    shadow = Shadow("fixed", policy, budget=1.0, timer=timer)
    steering = Steering(RoundRobin(), "round_robin", [shadow])

    workers = [send(steering, number, cached_tokens=80, ttft_s=0.7) for number in range(4)]

    assert workers == ["w0", "w1", "w0", "w1"]
    view = shadow.view()
    assert (view["asked"], view["agreement"]) == (4, 0.5)
    assert (view["live_match_tokens_mean"], view["shadow_match_tokens_mean"]) == (None, 100.0)
    assert (view["live_expected_ttft_s_mean"], view["shadow_expected_ttft_s_mean"]) == (None, 0.5)
    assert view["match_error_tokens_mean"] == 20.0
    assert view["ttft_error_s_mean"] == pytest.approx(0.2)
    assert len(policy.heard) == 8


def test_a_shadow_that_costs_too_much_sees_fewer_families_of_prompts_but_all_of_those() -> None:
    timer = Timer()
    policy = Fixed("w0", timer, cost_s=0.001)
    shadow = Shadow("slow", policy, budget=0.02, timer=timer)
    rng = Random(4)
    families = [rng.getrandbits(64) for _ in range(50)]
    asked: dict[int, list[bool]] = {family: [] for family in families}
    for number in range(20_000):
        family = families[number % 50]
        one = RoutingRequest(request_id=RequestId(f"r{number}"), endpoint="/generate", key=key(family, number))
        before = shadow.score.asked
        shadow.ask(one, VIEWS, decision("w0"))
        shadow.observe(Dispatched(request=one, decision=decision("w0"), at_s=0.0))
        shadow.observe(Finished(request_id=one.request_id, worker=WorkerId("w0"), outcome=outcome(), at_s=0.0))
        if number >= 10_000:
            asked[family].append(shadow.score.asked > before)
        timer.now_s += 0.01

    view = shadow.view()
    always = sum(all(each) for each in asked.values())
    assert view["cpu_share"] < 0.022
    assert view["asked"] + view["skipped"] == 20_000
    assert 5 <= always <= 12
    assert sum(any(each) for each in asked.values()) <= always + 5
    assert len(policy.heard) == 2 * view["asked"]


def test_a_shadow_within_its_budget_sees_everything_again() -> None:
    timer = Timer()
    policy = Fixed("w0", timer, cost_s=0.05)
    shadow = Shadow("slow at first", policy, budget=0.05, timer=timer)
    for number in range(2000):
        policy._cost_s = 0.05 if number < 200 else 0.0
        shadow.ask(request(number), VIEWS, decision("w0"))
        timer.now_s += 0.02

    assert shadow.view()["sampled"] == 1.0


def test_what_never_ends_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.experiment.shadow.PENDING", 10)
    timer = Timer()
    shadow = Shadow("fixed", Fixed("w0", timer), budget=1.0, timer=timer)
    for number in range(100):
        shadow.ask(request(number), VIEWS, decision("w0"))

    assert len(shadow._pending) == 10


def test_shadows_are_policies_by_name_with_parameters_and_share_the_budget() -> None:
    made = shadows_of(
        ShadowConfig(policies=("random", "prefix_match:load_slack=9"), cpu_share=0.04), PolicyConfigs(), Random(1)
    )

    assert [shadow.spec for shadow in made] == ["random", "prefix_match:load_slack=9"]
    assert [shadow._budget for shadow in made] == [0.02, 0.02]
    with pytest.raises(ConfigError, match="no policy 'nope'"):
        shadows_of(ShadowConfig(policies=("nope",)), PolicyConfigs(), Random(1))
    with pytest.raises(ConfigError, match="named twice"):
        shadows_of(ShadowConfig(policies=("random", "random")), PolicyConfigs(), Random(1))


def test_any_policy_can_be_a_shadow_of_any_other() -> None:
    policies: list[Policy] = [RoundRobin(), Fixed("w1", Timer())]
    for live in policies:
        for beside in policies:
            shadow = Shadow("x", beside, budget=1.0)
            assert send(Steering(live, "live", [shadow]), 1) in ("w0", "w1")
            assert shadow.score.asked == 1
