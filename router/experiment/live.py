"""A running experiment: gives each request its arm, tells arms what happens, counts outcomes, and decides when to end.

Called by steering (choose, observe), by the recorder as a sink of Outcomes (record), and by desk, which looks at it now
and then. Not here: starting and stopping (desk), statistics (judge, compare), how arms are kept apart (isolate).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from router.clock import Clock
from router.experiment.arm import Arm
from router.experiment.arm_tally import ArmTally
from router.experiment.assign import arm_index, group_of, unit_of
from router.experiment.choice import Choice
from router.experiment.compare import Design
from router.experiment.config import ExperimentConfig
from router.experiment.isolate import Plan
from router.experiment.judge import Judgement, judge
from router.experiment.tally import GROUPS, TimeGrid
from router.records import Dispatched, FleetEvent, Outcome, RoutingRequest
from router.types import ArmName, WorkerId, WorkerJoined, WorkerLeft, Workers


class Experiment:
    """One experiment from its start, which is now unless another process began it, to its end. `plan` was made for the
    workers that exist at the start.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        arms: Sequence[Arm],
        plan: Plan,
        *,
        salt: str,
        clock: Clock,
        started_s: float | None = None,
    ) -> None:
        self.config = config
        self.arms = tuple(arms)
        self.plan = plan
        self.salt = salt
        self.started_s = clock() if started_s is None else started_s
        self.notes: list[str] = []
        self.broken = False
        self._clock = clock
        self._shares = [arm.share for arm in arms]
        self._workers = None if plan.workers is None else [set(own) for own in plan.workers]
        self._index = {arm.name: place for place, arm in enumerate(arms)}
        grid = TimeGrid(self.started_s, config.block_s if self._workers else config.period_s * len(arms))
        self.tallies = tuple(
            ArmTally(grid, goodput_ttft_s=config.goodput_ttft_s, goodput_itl_s=config.goodput_itl_s) for _ in arms
        )

    # -- on the request's path ----------------------------------------------------------------------------------

    def choose(self, request: RoutingRequest, workers: Workers) -> Choice | None:
        """The decision of the request's arm among its own workers; of all workers (spilled) when it has none left."""
        place = self._arm_now(request)
        arm = self.arms[place]
        own = workers
        if self._workers is not None:
            ids = self._workers[place]
            own = [worker for worker in workers if worker.id in ids]
        among = own or workers
        return Choice(
            decision=arm.policy.select(request, among),
            policy=arm.policy,
            policy_name=arm.policy_name,
            workers=among,
            arm=arm.name,
            spilled=not own,
        )

    def observe(self, event: FleetEvent) -> None:
        """Tell every arm what happened on its own workers; when arms alternate, all share one fleet and hear all."""
        if isinstance(event, WorkerJoined | WorkerLeft):
            self._fleet_changed(event)
        worker = event.decision.worker if isinstance(event, Dispatched) else event.worker
        for place, arm in enumerate(self.arms):
            if self._workers is None or worker in self._workers[place] or isinstance(event, WorkerLeft):
                arm.policy.observe(event)

    def record(self, outcome: Outcome) -> None:
        """Sink of Outcomes. O(1)."""
        place = self._index.get(outcome.arm) if outcome.arm is not None else None
        if place is None or not self._counts(outcome.at_s):
            return
        self.tallies[place].add(outcome, self._group(outcome))

    # -- looking ------------------------------------------------------------------------------------------------

    def design(self) -> Design:
        treatments = len(self.arms) - 1
        return Design(
            alpha=self.config.alpha / treatments,
            planned=self.config.planned_requests,
            alternates=self._workers is None,
        )

    def judgements(self) -> dict[ArmName, Judgement]:
        """Every treatment against the control, as of now. Takes some milliseconds per arm."""
        design = self.design()
        return {
            arm.name: judge(self.tallies[0], tally, self.config, design)
            for arm, tally in zip(self.arms[1:], self.tallies[1:], strict=True)
        }

    def workers_of(self, place: int) -> tuple[WorkerId, ...] | None:
        """The workers of an arm, sorted; None when all arms use all workers in turns."""
        return None if self._workers is None else tuple(sorted(self._workers[place]))

    def age_s(self) -> float:
        return self._clock() - self.started_s

    def arm_without_workers(self) -> ArmName | None:
        """An arm whose last worker has left, if there is one: the experiment cannot go on."""
        if self._workers is None:
            return None
        return next((arm.name for arm, own in zip(self.arms, self._workers, strict=True) if not own), None)

    # -- inside -------------------------------------------------------------------------------------------------

    def _arm_now(self, request: RoutingRequest) -> int:
        if self._workers is None:
            return self._turn(self._clock())[0]
        unit = unit_of(request.session, request.client, request.request_id)
        return arm_index(self.salt, unit, self._shares)

    def _turn(self, at_s: float) -> tuple[int, float]:
        """Whose turn it is, and for how many seconds it has been. Every arm has one turn a cycle, in random order."""
        cycle, into_s = divmod(at_s - self.started_s, self.config.period_s * len(self.arms))
        order = list(range(len(self.arms)))
        Random(f"{self.salt}\0{int(cycle)}").shuffle(order)
        turn, since_s = divmod(into_s, self.config.period_s)
        return order[min(int(turn), len(order) - 1)], since_s

    def _counts(self, at_s: float) -> bool:
        """Whether a request that came at this moment counts: not during warm-up, nor while a turn begins."""
        if at_s - self.started_s < self.config.warmup_s:
            return False
        return self._workers is not None or self._turn(at_s)[1] >= self.config.washout_s

    def _group(self, outcome: Outcome) -> int:
        """Sessions are the independent units of a split fleet, cycles those of arms that alternate."""
        if self._workers is None:
            return int((outcome.at_s - self.started_s) / (self.config.period_s * len(self.arms))) % GROUPS
        return group_of(self.salt, unit_of(outcome.session, outcome.client, outcome.request_id))

    def _fleet_changed(self, event: WorkerJoined | WorkerLeft) -> None:
        """A worker that joins goes to the arm that has fewest for its share; one that leaves is struck off."""
        after = f"{event.at_s - self.started_s:.0f} s after the start"
        if self._workers is None:
            return
        if isinstance(event, WorkerLeft):
            for own in self._workers:
                own.discard(event.worker)
            self.notes.append(f"{event.worker} left {after}.")
        else:
            fill = [len(own) / arm.share for own, arm in zip(self._workers, self.arms, strict=True)]
            place = fill.index(min(fill))
            self._workers[place].add(event.worker)
            self.notes.append(f"{event.worker} joined {after} and went to {self.arms[place].name}.")
        self.notes = self.notes[-20:]
