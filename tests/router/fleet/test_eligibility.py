"""Who gets the next request while a worker warms, pauses, or is to be tried."""

from __future__ import annotations

from router.fleet.judge import Judge
from router.fleet.registry import Registry
from router.fleet.state import WorkerState
from router.fleet.worker import Worker
from router.records import FirstToken
from router.types import AttemptFailed, RequestId, WorkerChanged


class Clocked:
    """Three ready workers under a clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.registry = Registry(lambda: self.now_s)
        Judge(self.registry).listen()
        self.changes: list[WorkerChanged] = []
        self.registry.listen(lambda event: self.changes.append(event) if isinstance(event, WorkerChanged) else None)
        self.workers = [self.ready(name) for name in "abc"]

    def ready(self, name: str) -> Worker:
        worker = self.registry.add(f"http://{name}:1", name)
        worker.vitals.probe_answered(self.now_s)
        self.registry.judge(worker)
        return worker

    def eligible(self) -> str:
        return "".join(worker.id for worker in self.registry.eligible(None))

    def fails(self, worker: Worker, code: str) -> None:
        self.registry.emit(AttemptFailed(request_id=RequestId("r"), worker=worker.id, at_s=self.now_s, code=code))

    def answers(self, worker: Worker, status: int = 200) -> None:
        self.registry.emit(
            FirstToken(request_id=RequestId("r"), worker=worker.id, ttft_s=0.1, at_s=self.now_s, status=status)
        )


def test_workers_that_start_together_share_at_once() -> None:
    assert Clocked().eligible() == "abc"


def test_a_worker_that_joins_a_running_fleet_gets_a_growing_share() -> None:
    fleet = Clocked()
    fleet.now_s = 100.0
    new = fleet.ready("d")
    for worker in fleet.workers:
        worker.in_flight = 20
    seen = [fleet.eligible()]
    new.in_flight = 2
    seen.append(fleet.eligible())
    fleet.now_s = 115.0  # half of warm_s: 55 % of 20
    seen.append(fleet.eligible())
    new.in_flight = 11
    seen.append(fleet.eligible())
    fleet.now_s = 130.0
    seen.append(fleet.eligible())

    assert seen == ["abcd", "abc", "abcd", "abc", "abcd"]


def test_a_worker_that_asks_for_a_pause_gets_it_unless_all_do() -> None:
    fleet = Clocked()
    fleet.registry.hold(fleet.workers[0], 5.0)
    seen = [fleet.eligible()]
    for worker in fleet.workers[1:]:
        fleet.registry.hold(worker, 5.0)
    seen.append(fleet.eligible())
    fleet.now_s = 5.0
    seen.append(fleet.eligible())

    assert seen == ["bc", "abc", "abc"]


def test_a_worker_that_fails_is_taken_out_tried_alone_and_comes_back() -> None:
    fleet = Clocked()
    broken = fleet.workers[1]
    for _ in range(5):
        fleet.fails(broken, "worker_refused")
    seen = [fleet.eligible()]
    fleet.now_s = 2.0
    for _ in range(2):
        seen.append(fleet.eligible())
        fleet.registry.trial_s(broken)
        seen.append(fleet.eligible())
        broken.vitals.probe_answered(fleet.now_s)
        fleet.answers(broken)

    assert seen == ["ac", "b", "ac", "b", "ac"]
    assert fleet.eligible() == "abc"
    assert [(change.worker, change.before, change.after) for change in fleet.changes if change.worker == "b"] == [
        ("b", "starting", "ready"),
        ("b", "ready", "degraded"),
        ("b", "degraded", "ready"),
    ]


def test_a_busy_worker_is_not_a_broken_one() -> None:
    fleet = Clocked()
    for _ in range(50):
        fleet.fails(fleet.workers[0], "worker_busy")
        fleet.answers(fleet.workers[1], status=503)

    assert fleet.eligible() == "abc"


def test_a_refused_connection_takes_a_worker_out_at_the_first_request() -> None:
    fleet = Clocked()
    fleet.fails(fleet.workers[2], "worker_unreachable")

    assert fleet.eligible() == "ab"
    assert fleet.workers[2].state is WorkerState.DEGRADED


def test_when_all_ready_workers_were_tried_one_whose_breaker_is_open_is_better_than_none() -> None:
    fleet = Clocked()
    for _ in range(5):
        fleet.fails(fleet.workers[0], "worker_hung_up")
    left = fleet.registry.eligible(None, [worker.id for worker in fleet.workers[1:]])

    assert left == (fleet.workers[0],)
