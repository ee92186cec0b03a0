"""Processes that share one view, over a fake parent: what happens in one is known in all, and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

import pytest

from outcomes import decision, key, outcome
from router.admission.admission import AdmissionConfig
from router.admission.held_queue import Held
from router.admission.hold import Hold
from router.config import load_config
from router.errors import WorkerTimeout
from router.experiment.config import ExperimentConfig, Isolation
from router.fleet.breaker import BreakerState
from router.fleet.call_off import CallOff
from router.fleet.registry import Registry
from router.fleet.worker import WorkerState
from router.insight import Insight
from router.policies import build_policy
from router.policies.remembers import index_blocks_of
from router.processes.bus import Bus
from router.processes.frame import ALL, EVENTS, GAP, PARENT, PEERS, Frames, pack
from router.processes.parts import Parts
from router.processes.relay import Relay
from router.processes.replica import Replica
from router.processes.shared_homes import SharedHomes
from router.processes.shared_limits import SharedAdmission
from router.processes.totals import Totals
from router.processes.wire import encode as _encode
from router.records import Dispatched, Finished, FirstToken, FleetEvent, Outcome, RoutingRequest
from router.request.strand import Strand
from router.telemetry.metrics import Metrics
from router.types import AttemptFailed, CacheCleared, LoadReport, RequestId, WorkerId, WorkerJoined, WorkerLeft

NOW_S = 100.0


class Process:
    """One process of the router: what a replica keeps the same, and the replica."""

    def __init__(self, number: int) -> None:
        config = load_config(None, {})
        self.registry = Registry(lambda: NOW_S)
        self.policy = build_policy("prefix_match", config.policies, Random(number))
        self.insight = Insight(
            config, self.policy, self.registry, rng=Random(number), clock=lambda: NOW_S, version="test"
        )
        self.heard: list[FleetEvent] = []
        self.registry.listen(self.heard.append)
        self.hold = Hold(config.hold, lambda: NOW_S)
        self.registry.listen(self.hold.observe, *Hold.HEARS)
        self.bus = Bus(number)
        self.totals = Totals(
            Metrics(self.registry, self.insight.backlog, lambda: NOW_S), self.insight.traffic, number
        )
        self.homes = SharedHomes()
        parts = Parts(
            registry=self.registry,
            insight=self.insight,
            admission=SharedAdmission(AdmissionConfig(), lambda: NOW_S, number),
            homes=self.homes,
            hold=self.hold,
            policy=self.policy,
            policy_name="prefix_match",
            totals=self.totals,
            addresses=None,
            clock=lambda: NOW_S,
        )
        self.replica = Replica(self.bus, parts)
        self.led: list[bool] = []
        self.replica.on_lead = self.led.append

    def in_flight(self, name: str) -> int:
        return self.registry.get(name).in_flight

    def counted(self) -> float:
        lines = self.totals.render().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("trieway_requests_total"))

    def dispatch(self, name: str = "r1", worker: str = "one", *blocks: int) -> Dispatched:
        """A request goes to a worker from here, and stays there."""
        request = RoutingRequest(request_id=RequestId(name), endpoint="/v1", key=key(*blocks), at_s=NOW_S)
        event = Dispatched(request=request, decision=decision(worker), at_s=NOW_S)
        self.registry.lease(self.registry.get(worker), CallOff(Wait())).__enter__()
        self.registry.emit(event)
        return event

    def end(self, sent: Dispatched) -> Outcome:
        """It has been answered."""
        worker = self.registry.get(sent.decision.worker)
        worker.in_flight -= 1
        ended = outcome(sent.request.request_id, key=sent.request.key, decision=sent.decision)
        self.registry.emit(
            Finished(request_id=ended.request_id, worker=worker.id, outcome=ended, at_s=NOW_S)
        )
        for sink in self.insight.sinks:
            sink(ended)
        self.replica.ended(ended)
        return ended


class Wait:
    """Stands for what serves a request, and can be cancelled."""

    def cancel(self) -> bool:
        return True

    def uncancel(self) -> int:
        return 0


class Hub:
    """The parent, without processes: hands frames on, drops events of those in `deaf`."""

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.deaf: set[int] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self._relay = Relay()
        self._frames: dict[int, Frames] = {}
        self._leader = PARENT

    def spawn(self, work: Any) -> object:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def start(self, number: int, *workers: str) -> Process:
        process = self.processes[number] = Process(number)
        for name in workers:
            worker = process.registry.add(f"http://{name}:1", name)
            process.registry.set_state(worker, WorkerState.READY, "a test")
        self._relay.join(number)
        self._frames[number] = Frames()
        process.bus.connection_made(cast("asyncio.BaseTransport", Transport(self, number)))
        self.tell()
        await process.replica.begin(self.spawn)
        await self.settle()
        return process

    async def kill(self, number: int) -> None:
        del self.processes[number]
        self._relay.leave(number)
        self.tell()
        await self.settle()

    def tell(self) -> None:
        if self._leader not in self.processes:
            self._leader = min(self.processes)
        numbers = list(self.processes)
        for number, box in self._relay.outboxes.items():
            payload = _encode((self._leader, numbers, numbers, 0))
            box.put(pack(PARENT, number, PEERS, payload), droppable=False)
        self.deliver()

    def write(self, source: int, data: bytes) -> None:
        for _, target, kind, payload in self._frames[source].feed(data):
            self._relay.hand_on(source, target, kind, payload)
        asyncio.get_running_loop().call_soon(self.deliver)

    def deliver(self) -> None:
        for number, box in list(self._relay.outboxes.items()):
            while (data := box.next()) is not None:
                whole = bytes(data)
                box.written(len(whole))
                if number in self.deaf:
                    kept = [frame for frame in Frames().feed(whole) if frame[2] != EVENTS]
                    whole = b"".join(pack(*frame) for frame in kept)
                self.processes[number].bus.data_received(whole)

    async def settle(self) -> None:
        """Everybody tells what there is to tell, and hears it."""
        for _ in range(3):
            for process in self.processes.values():
                process.replica.flush()
            for _ in range(8):
                await asyncio.sleep(0)

    async def missed(self, number: int) -> None:
        """Tell this process that it lost something."""
        self.processes[number].bus.data_received(pack(PARENT, ALL, GAP, b""))
        for _ in range(8):
            await asyncio.sleep(0)
        await self.settle()


class Transport:
    def __init__(self, hub: Hub, number: int) -> None:
        self._hub = hub
        self._number = number

    def write(self, data: bytes) -> None:
        if self._number in self._hub.processes:
            self._hub.write(self._number, data)

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    yield made
    for task in list(made.tasks):
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


@pytest.fixture
async def two(hub: Hub) -> tuple[Process, Process]:
    """The leader, which knows workers one and two, and another process, which knows what the leader told it."""
    return await hub.start(0, "one", "two"), await hub.start(1)


async def test_a_process_that_joins_has_the_leaders_workers_and_does_not_lead(two: tuple[Process, Process]) -> None:
    leader, other = two

    assert (leader.led, other.led) == ([True], [])
    assert [(each.id, each.state) for each in other.registry.all()] == [
        ("one", WorkerState.READY), ("two", WorkerState.READY),
    ]  # fmt: skip


@pytest.mark.parametrize("here", [0, 1])
async def test_a_request_is_booked_and_learned_from_in_all_processes_and_counted_once(
    hub: Hub, two: tuple[Process, Process], here: int
) -> None:
    leader, process, other = two[0], two[here], two[1 - here]
    sent = process.dispatch("r1", "two", 1, 2, 3)
    await hub.settle()
    while_it_runs = (process.in_flight("two"), other.in_flight("two"), len(other.registry.get("two").unanswered))
    process.registry.emit(FirstToken(request_id=RequestId("r1"), worker=WorkerId("two"), ttft_s=0.1, at_s=NOW_S))
    await hub.settle()
    answered = len(other.registry.get("two").unanswered)
    process.end(sent)
    await hub.settle()
    before = other.counted()
    await leader.replica.refresh()
    await hub.settle()

    assert while_it_runs == (1, 1, int(other is leader))  # only who judges workers may end waits
    assert answered == 0
    assert (process.in_flight("two"), other.in_flight("two")) == (0, 0)
    assert index_blocks_of(other.policy) == {"two": 3}
    assert before == 0
    assert (process.counted(), other.counted()) == (1, 1)
    assert [type(each) for each in other.heard][-3:] == [Dispatched, FirstToken, Finished]


async def test_a_request_that_one_process_holds_is_decided_again_when_one_of_another_ends(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    sent = leader.dispatch("r1", "one")
    await hub.settle()
    held, in_flight = Held(NOW_S), list[int]()

    async def waits() -> None:
        await other.hold.turn(held, decision("one", hold=True, expected_ttft_s=9.0, expected_wait_s=8.0))
        in_flight.append(other.in_flight("one"))
        other.hold.leave(held, 0.0)

    strand = Strand(asyncio.get_running_loop())
    strand.start(waits())
    await leader.replica.refresh()
    seen, told = leader.replica.held()["held"], strand.done()
    leader.end(sent)
    await hub.settle()

    assert (seen, told) == (1, False)
    assert in_flight == [0]  # it is asked when all of that is known, and not by the timer
    assert strand.done()


async def test_recent_requests_of_all_processes_are_shown_where_they_are_asked_for(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    ended = [leader.end(leader.dispatch("r1", "one", 1)), other.end(other.dispatch("r2", "two", 2))]
    refused = outcome("r9", at_s=NOW_S + 1, status=503, error="no_worker", decision=None)
    for sink in other.insight.sinks:
        sink(refused)
    alone = [kept.outcome for kept in leader.insight.recent.latest(5)]
    await leader.replica.borrow("r2")
    [named] = [kept.outcome for kept in leader.insight.recent.latest(5) if kept.request_id != "r1"]
    await leader.replica.borrow()

    assert alone == ended[:1]
    assert named == ended[1]
    assert sorted(each.request_id for each in leader.insight.recent.outcomes()) == ["r1", "r2", "r9"]
    assert leader.insight.recent.latest(1)[0].outcome == refused


async def test_what_is_asked_for_as_the_last_request_is_the_last_of_all_processes(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    leader.end(leader.dispatch("r1", "one"))
    for sink in other.insight.sinks:
        sink(outcome("r2", at_s=NOW_S + 1))
    await leader.replica.borrow("last")

    assert [each.request_id for each in leader.insight.recent.latest(1)] == ["r2"]


async def test_a_request_that_ended_on_no_worker_is_open_nowhere(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    sent = other.dispatch("r1", "one")
    other.registry.emit(AttemptFailed(request_id=RequestId("r1"), worker=WorkerId("one"), at_s=NOW_S))
    await hub.settle()
    other.replica.ended(outcome("r1", decision=None, key=sent.request.key))
    await hub.settle()
    await hub.missed(0)

    assert len(leader.registry.get("one").unanswered) == 0
    assert len([each for each in leader.heard if isinstance(each, AttemptFailed)]) == 1  # it is not closed once more
    assert not [each for each in leader.heard if isinstance(each, Finished)]


async def test_what_ran_in_a_process_that_ends_is_undone_everywhere(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    other.dispatch("r1", "one")
    await hub.settle()
    before = leader.in_flight("one")
    await hub.kill(1)

    assert (before, leader.in_flight("one"), len(leader.registry.get("one").unanswered)) == (1, 0, 0)
    failed = [each for each in leader.heard if isinstance(each, AttemptFailed)]
    assert [(each.request_id, each.code) for each in failed] == [("r1", None)]


async def test_when_the_leader_ends_another_leads_with_what_it_knew(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    leader.end(leader.dispatch("r1", "one", 1, 2))
    await hub.settle()
    await leader.replica.refresh()
    shown = leader.counted()
    await hub.kill(0)
    third = await hub.start(2)

    assert other.led == [False]  # nothing is taken from a file: it knows
    assert third.led == []
    assert index_blocks_of(third.policy) == {"one": 2}
    assert third.counted() == other.counted() == shown == 1


async def test_the_leaders_judgement_of_a_worker_is_everybodys(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    worker = leader.registry.get("one")
    worker.vitals.breaker.trip(NOW_S, "a test")
    leader.registry.set_state(worker, WorkerState.DEGRADED, "breaker open")
    leader.registry.report_load(
        worker,
        LoadReport(at_s=NOW_S, running=1, waiting=2, waiting_uncached_tokens=3, used_tokens=4, capacity_tokens=5),
    )
    leader.registry.drain(leader.registry.get("two"))
    await hub.settle()

    there = other.registry.get("one")
    assert (there.state, there.state_reason, there.load) == (WorkerState.DEGRADED, "breaker open", worker.load)
    assert there.vitals.breaker.state is BreakerState.OPEN
    assert other.registry.get("two").state is WorkerState.DRAINING


async def test_a_worker_that_was_removed_and_added_again_is_a_new_one_everywhere(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    other.end(other.dispatch("r1", "one", 1, 2))
    await hub.settle()
    leader.registry.remove(leader.registry.get("one"))
    again = leader.registry.add("http://one:1", "one", [("authorization", "Bearer x")])
    again.vitals.joined_s += 1
    await hub.settle()

    assert [type(each) for each in other.heard if isinstance(each, WorkerLeft | WorkerJoined)][-2:] == [
        WorkerLeft, WorkerJoined,
    ]  # fmt: skip
    assert index_blocks_of(other.policy) == {}
    assert other.registry.get("one").extra_headers == (("authorization", "Bearer x"),)


async def test_the_leader_can_call_off_a_request_that_waits_in_another_process(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    other.dispatch("r1", "one")
    [wait] = other.registry.get("one").unanswered
    await hub.settle()
    leader.registry.call_off(leader.registry.get("one"))
    await hub.settle()

    error = cast(CallOff, wait).taken()
    assert isinstance(error, WorkerTimeout)
    assert "one hangs" in error.message


async def test_a_trial_that_one_process_makes_is_everybodys(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    for process in two:
        process.registry.get("one").vitals.breaker.reopened(NOW_S, 0)
    other.dispatch("r1", "one")
    await hub.settle()

    assert leader.registry.get("one").vitals.breaker.state is BreakerState.TRIAL
    assert not leader.registry.get("one").vitals.breaker.trial_due(NOW_S)


async def test_a_pause_that_a_worker_asked_one_process_for_is_kept_by_all(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    other.registry.hold(other.registry.get("one"), 5.0)
    await hub.settle()

    assert [worker.id for worker in leader.registry.eligible(None)] == ["two"]


async def test_an_emptied_cache_is_forgotten_by_all(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    leader.end(leader.dispatch("r1", "one", 1, 2))
    await hub.settle()
    other.registry.cache_cleared(other.registry.get("one"))
    await hub.settle()

    assert index_blocks_of(leader.policy) == index_blocks_of(other.policy) == {}
    assert len([each for each in leader.heard if isinstance(each, CacheCleared)]) == 1  # not told back and forth


async def test_a_process_that_lost_the_end_of_a_request_finds_out(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    lost, kept = leader.dispatch("r1", "one"), leader.dispatch("r2", "one")
    await hub.settle()
    hub.deaf = {1}
    leader.end(lost)
    await hub.settle()
    hub.deaf = set()
    stale = other.in_flight("one")
    await hub.missed(1)
    failed = [each.request_id for each in other.heard if isinstance(each, AttemptFailed)]
    leader.end(kept)
    await hub.settle()

    assert stale == 2
    assert failed == ["r1"]
    assert other.in_flight("one") == 0
    assert "trieway_process_gaps_total 1.0" in other.totals.render().decode()


async def test_an_experiment_assigns_alike_and_ends_everywhere(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    config = ExperimentConfig(arms=("a=random", "b=round_robin"), isolation=Isolation.SPLIT, warmup_s=0.0)
    leader.insight.desk.start(config)
    await hub.settle()
    third = await hub.start(2)
    requests = [
        RoutingRequest(request_id=RequestId(str(i)), endpoint="/v1", key=key(1), session=f"s{i}") for i in range(50)
    ]
    arms = [
        [process.insight.steering.choose(each, process.registry.all()).arm for each in requests]
        for process in (leader, other, third)
    ]
    leader.insight.desk.stop()
    await hub.settle()

    assert arms[0] == arms[1] == arms[2]
    assert set(arms[0]) == {"a", "b"}
    assert other.insight.desk.running is third.insight.desk.running is None
    assert [each["state"] for each in other.insight.desk.past] == ["stopped"]


async def test_a_stored_response_has_its_home_in_all_processes(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two
    other.homes.made("resp_1", "two")
    await hub.settle()

    assert leader.homes.home("resp_1") == "two"


async def test_figures_are_fresh_when_they_are_asked_for_and_the_last_known_of_who_does_not_answer(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    other.end(other.dispatch("r1", "one"))
    other.totals.gaps = 2
    await leader.replica.refresh()
    fresh = leader.totals.render().decode()
    other.bus.answers["figures"] = silent
    await leader.replica.refresh()
    stale = leader.totals.render().decode()

    assert "trieway_processes 2.0" in fresh
    assert "trieway_processes 1.0" in stale
    for text in (fresh, stale):
        assert "trieway_process_gaps_total 2.0" in text
        assert 'trieway_process_requests_total{process="1"} 1.0' in text


async def silent(source: int, body: Any) -> Any:
    raise RuntimeError("cannot answer")


async def test_how_a_request_was_weighed_in_one_process_is_known_to_the_one_that_is_asked(
    hub: Hub, two: tuple[Process, Process]
) -> None:
    leader, other = two
    request = RoutingRequest(request_id=RequestId("r1"), endpoint="/v1", key=key(1, 2), at_s=NOW_S)
    choice = other.insight.steering.choose(request, other.registry.all())
    other.insight.explainer.decided(request, choice, asked=True)
    await leader.replica.borrow("r1")

    here, there = other.insight.recent.find("r1"), leader.insight.recent.find("r1")
    assert here is not None
    assert there is not None
    assert there.weighings == here.weighings
    assert [each.candidate is not None for each in there.weighings[0].workers] == [True, True]


async def test_a_batch_with_something_wrong_costs_only_that(hub: Hub, two: tuple[Process, Process]) -> None:
    leader, other = two

    def broken(event: FleetEvent) -> None:
        raise RuntimeError("a listener with a bug")

    leader.registry.listen(broken, CacheCleared)
    other.registry.cache_cleared(other.registry.get("one"))
    other.end(other.dispatch("r1", "one"))
    await hub.settle()

    assert len([each for each in leader.heard if isinstance(each, Finished)]) == 1
