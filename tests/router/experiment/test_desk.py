"""An experiment from its start to its end: who decides, what is counted, what ends it, what is refused."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from outcomes import key, outcome
from policy_fakes import View
from router.errors import ConfigError, ExperimentRunning, NoExperiment
from router.experiment.config import ExperimentConfig, Isolation
from router.experiment.desk import ExperimentDesk
from router.experiment.steering import Steering
from router.policies import PolicyConfigs
from router.policies.round_robin import RoundRobin
from router.records import Decision, Dispatched, RoutingRequest
from router.types import ArmName, RequestId, WorkerId, WorkerJoined, WorkerLeft


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Room:
    """A desk with its steering, four workers and a clock."""

    def __init__(self, workers: int = 4) -> None:
        self.clock = Clock()
        self.views = [View(WorkerId(f"w{i}")) for i in range(workers)]
        self.steering = Steering(RoundRobin(), "round_robin")
        self.desk = ExperimentDesk(
            self.steering, PolicyConfigs(), lambda: [view.id for view in self.views], rng=Random(1), clock=self.clock
        )

    def start(self, *arms: str, **fields: Any) -> None:
        self.desk.start(ExperimentConfig(arms=arms or ("a=round_robin", "b=round_robin"), **fields))

    def send(self, session: str | None = None, number: int = 0) -> tuple[ArmName | None, WorkerId, bool]:
        request = RoutingRequest(
            request_id=RequestId(f"r{number}"), endpoint="/generate", key=key(1), session=session
        )
        choice = self.steering.choose(request, self.views)
        self.steering.observe(Dispatched(request=request, decision=choice.decision, at_s=self.clock()))
        return choice.arm, choice.decision.worker, choice.spilled


def test_sessions_stay_in_their_arm_and_arms_on_their_workers() -> None:
    room = Room()
    room.start()

    seen: dict[str, set[ArmName | None]] = {}
    workers: dict[ArmName | None, set[WorkerId]] = {}
    for number in range(400):
        session = f"s{number % 40}"
        arm, worker, spilled = room.send(session)
        seen.setdefault(session, set()).add(arm)
        workers.setdefault(arm, set()).add(worker)
        assert not spilled

    assert all(len(arms) == 1 for arms in seen.values())
    assert workers == {"a": {"w0", "w2"}, "b": {"w1", "w3"}}


def test_without_a_session_requests_are_spread_over_the_arms() -> None:
    room = Room()
    room.start()

    arms = [room.send(number=number)[0] for number in range(400)]

    assert 150 < arms.count(ArmName("a")) < 250


def test_an_arm_whose_workers_cannot_take_a_request_spills_it_and_it_is_not_compared() -> None:
    room = Room()
    room.start(warmup_s=0.0)
    mine = next(f"s{i}" for i in range(50) if room.send(f"s{i}")[0] == "a")
    room.views = room.views[1::2]

    arm, worker, spilled = room.send(mine)
    room.desk.record(outcome(arm=arm, spilled=spilled, at_s=1001.0))

    assert (arm, worker in ("w1", "w3"), spilled) == ("a", True, True)
    report = room.desk.now()
    assert report is not None
    assert [(each["requests"], each["spilled"]) for each in report["arms"]] == [(0, 1), (0, 0)]


def test_warm_up_and_requests_outside_of_the_experiment_count_for_nothing() -> None:
    room = Room()
    room.start(warmup_s=60.0)
    room.desk.record(outcome(arm=ArmName("a"), at_s=1059.0))
    room.desk.record(outcome(arm=None, at_s=1070.0))
    room.desk.record(outcome(arm=ArmName("gone"), at_s=1070.0))
    room.desk.record(outcome(arm=ArmName("a"), at_s=1070.0))

    report = room.desk.now()
    assert report is not None
    assert [each["requests"] for each in report["arms"]] == [1, 0]


def test_arms_that_alternate_take_every_worker_in_turns_and_each_has_one_turn_a_cycle() -> None:
    room = Room(workers=1)
    room.start(period_s=10.0, washout_s=2.0, warmup_s=0.0)
    turns = []
    for _ in range(20):
        arms = set()
        for _ in range(10):
            arms.add(room.send("one session")[0])
            room.clock.now_s += 1.0
        assert len(arms) == 1
        turns.append(arms.pop())

    assert all({a, b} == {"a", "b"} for a, b in zip(turns[::2], turns[1::2], strict=True))
    assert turns[0:2] * 10 != turns
    room.desk.record(outcome(arm=ArmName("a"), at_s=1001.0))
    room.desk.record(outcome(arm=ArmName("a"), at_s=1003.0))
    report = room.desk.now()
    assert report is not None
    assert report["isolation"] == "alternate"
    assert "1 worker cannot serve 2 arms" in report["isolation_why"]
    assert report["arms"][0]["requests"] == 1


def test_an_arm_hears_only_of_its_own_workers() -> None:
    room = Room()
    room.start("a=round_robin", "b=prefix_match")
    for number in range(100):
        room.send(f"s{number}")
    experiment = room.desk.running
    assert experiment is not None

    heard = set(experiment.arms[1].policy.index.workers())  # type: ignore[attr-defined]
    assert heard
    assert heard <= {"w1", "w3"}


def test_a_worker_that_joins_goes_to_the_arm_that_has_fewest_and_one_that_leaves_is_struck_off() -> None:
    room = Room()
    room.start()
    room.steering.observe(WorkerLeft(worker=WorkerId("w3"), at_s=1010.0))
    room.steering.observe(WorkerJoined(worker=WorkerId("w9"), at_s=1020.0))

    report = room.desk.now()
    assert report is not None
    assert [each["workers"] for each in report["arms"]] == [("w0", "w2"), ("w1", "w9")]
    assert report["notes"] == ["w3 left 10 s after the start.", "w9 joined 20 s after the start and went to b."]


def test_it_ends_when_an_arm_has_lost_all_its_workers() -> None:
    room = Room(workers=2)
    room.start()
    room.steering.observe(WorkerLeft(worker=WorkerId("w1"), at_s=1010.0))
    room.desk.look()

    assert room.desk.running is None
    assert (room.desk.past[0]["state"], room.desk.past[0]["why"]) == ("fleet", "Arm b has no worker left.")
    assert room.send("s")[0] is None


def test_it_ends_when_an_arm_harms_and_the_live_policy_takes_over() -> None:
    room = Room()
    room.start(warmup_s=0.0)
    for number in range(6):
        room.desk.record(outcome(arm=ArmName("a"), at_s=1000.0 + number))
        room.desk.record(outcome(arm=ArmName("b"), at_s=1000.0 + number, status=502, error="worker_hung_up"))
    room.desk.look()

    assert room.desk.running is None
    assert room.desk.past[0]["state"] == "harm"
    assert room.send("s")[0] is None


def test_it_ends_when_a_policy_of_an_arm_fails() -> None:
    room = Room()
    room.start()
    assert room.desk.running is not None
    room.desk.running.broken = True
    room.desk.look()

    assert room.desk.past[0]["state"] == "broken"


def test_it_ends_when_its_time_is_over_and_goes_on_before() -> None:
    room = Room()
    room.start(max_s=100.0)
    room.desk.look()
    assert room.desk.running is not None
    room.clock.now_s += 100.0
    room.desk.look()

    assert room.desk.past[0]["state"] == "time"


def test_it_ends_when_it_is_decided() -> None:
    room = Room()
    room.start(warmup_s=0.0, planned_requests=1000)
    rng = Random(3)
    for number in range(3000):
        for arm, factor in (("a", 1.0), ("b", 0.7)):
            ttft_s = factor * rng.lognormvariate(-1.0, 0.4)
            room.desk.record(
                outcome(f"r{number}{arm}", arm=ArmName(arm), at_s=1000.0 + number / 4, ttft_s=ttft_s)
            )
    room.desk.look()

    assert room.desk.running is None
    assert room.desk.past[0]["state"] == "better"
    assert "ttft_mean is better" in room.desk.past[0]["why"]


def test_only_one_runs_at_a_time_and_nothing_cannot_be_stopped() -> None:
    room = Room()
    with pytest.raises(NoExperiment):
        room.desk.stop()
    room.start()
    with pytest.raises(ExperimentRunning, match="Stop it first"):
        room.start()

    assert room.desk.stop()["state"] == "stopped"


@pytest.mark.parametrize(
    ("arms", "fields", "said"),
    [
        (("a=round_robin",), {}, "at least two arms"),
        (("a=round_robin", "b=nope"), {}, "no policy 'nope'"),
        (("a=round_robin@0.9", "b=random@0.2"), {}, "add up to 1.1"),
        (("a=round_robin", "b=random", "c=random"), {"isolation": Isolation.SPLIT}, "cannot be divided|more load"),
    ],
)
def test_what_cannot_work_is_refused_and_changes_nothing(arms: tuple[str, ...], fields: Any, said: str) -> None:
    room = Room()

    with pytest.raises(ConfigError, match=said):
        room.start(*arms, **fields)

    assert room.desk.running is None
    assert room.steering.experiment is None


def test_the_same_salt_gives_the_same_arms_after_a_restart() -> None:
    first, second, other = Room(), Room(), Room()
    for room, salt in ((first, "x"), (second, "x"), (other, "y")):
        room.start(salt=salt)
    sessions = [f"s{i}" for i in range(60)]

    assert [first.send(s)[0] for s in sessions] == [second.send(s)[0] for s in sessions]
    assert [first.send(s)[0] for s in sessions] != [other.send(s)[0] for s in sessions]


def test_steering_without_an_experiment_is_the_live_policy() -> None:
    room = Room()

    assert [room.send()[1] for _ in range(5)] == ["w0", "w1", "w2", "w3", "w0"]
    assert isinstance(room.steering.policy, RoundRobin)
    assert isinstance(room.steering.choose(
        RoutingRequest(request_id=RequestId("r"), endpoint="/generate", key=key()), room.views
    ).decision, Decision)  # fmt: skip
