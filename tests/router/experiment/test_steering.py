"""Steering: the live policy always decides in the end, whatever arms and shadows do."""

from __future__ import annotations

import logging

import pytest

from outcomes import decision, key
from policy_fakes import View
from router.experiment.choice import Choice
from router.experiment.shadow import Shadow
from router.experiment.steering import Steering
from router.policies.round_robin import RoundRobin
from router.records import Decision, Dispatched, FleetEvent, RoutingRequest
from router.types import ArmName, RequestId, WorkerId, WorkerJoined, Workers

VIEWS = [View(WorkerId("w0")), View(WorkerId("w1"))]
REQUEST = RoutingRequest(request_id=RequestId("r"), endpoint="/generate", key=key(1))
JOINED = WorkerJoined(worker=WorkerId("w0"), at_s=0.0)


class Broken:
    """A policy with a bug."""

    def select(self, request: RoutingRequest, workers: Workers) -> Decision:
        raise IndexError("select")

    def observe(self, event: FleetEvent) -> None:
        raise IndexError("observe")


class BrokenExperiment:
    broken = False
    asked = 0

    def choose(self, request: RoutingRequest, workers: Workers) -> Choice | None:
        self.asked += 1
        raise IndexError("choose")

    def observe(self, event: FleetEvent) -> None:
        raise IndexError("observe")


class Arm:
    broken = False

    def choose(self, request: RoutingRequest, workers: Workers) -> Choice | None:
        return Choice(
            decision=decision("w1"), policy=RoundRobin(), policy_name="x", workers=workers, arm=ArmName("b")
        )

    def observe(self, event: FleetEvent) -> None:
        pass


def test_an_arm_decides_where_there_is_one_and_the_live_policy_elsewhere() -> None:
    steering = Steering(RoundRobin(), "round_robin")
    assert steering.choose(REQUEST, VIEWS).arm is None
    steering.experiment = Arm()
    assert steering.choose(REQUEST, VIEWS).arm == "b"


@pytest.mark.parametrize("when", ["select", "observe"])
def test_a_shadow_with_a_bug_costs_no_request_and_is_left_out(when: str, caplog: pytest.LogCaptureFixture) -> None:
    shadow = Shadow("broken", Broken(), budget=1.0)
    steering = Steering(RoundRobin(), "round_robin", [shadow])
    with caplog.at_level(logging.ERROR):
        if when == "observe":
            steering.observe(JOINED)
        for _ in range(3):
            choice = steering.choose(REQUEST, VIEWS)
            steering.shadow(REQUEST, VIEWS, choice.decision)
            steering.observe(Dispatched(request=REQUEST, decision=choice.decision, at_s=0.0))

    assert shadow.view()["broken"]
    assert len(caplog.records) == 1
    assert "failed and is left out" in caplog.text


@pytest.mark.parametrize("when", ["choose", "observe"])
def test_an_experiment_with_a_bug_leaves_the_request_to_the_live_policy(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    steering = Steering(RoundRobin(), "round_robin")
    experiment = steering.experiment = BrokenExperiment()
    with caplog.at_level(logging.ERROR):
        if when == "observe":
            steering.observe(JOINED)
        choices = [steering.choose(REQUEST, VIEWS) for _ in range(3)]
        steering.observe(JOINED)

    assert {choice.policy_name for choice in choices} == {"round_robin"}
    assert experiment.broken
    assert experiment.asked <= 1
    assert len(caplog.records) == 1
