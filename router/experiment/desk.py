"""Where experiments are started, watched and stopped: at most one at a time, and what became of the last ones.

Refuses what could not work before anything changes. `run` is a task that looks every few seconds and ends an experiment
that is decided, that harms, or that cannot go on. Called by app and routes. Not here: statistics, HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from router.clock import Clock
from router.errors import ExperimentRunning, NoExperiment
from router.experiment.arm import Arm, arms_of
from router.experiment.config import ExperimentConfig
from router.experiment.isolate import Plan, plan
from router.experiment.judge import Verdict
from router.experiment.live import Experiment
from router.experiment.report import Report, report
from router.experiment.steering import Steering
from router.policies import PolicyConfigs
from router.records import Outcome
from router.types import WorkerId, WorkerJoined

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
KEPT_REPORTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an experiment ended: a verdict's name, `stopped`, `time`, `fleet` or `broken`; and why, in a sentence."""

    how: str
    why: str


class ExperimentDesk:
    """`fleet` gives the workers that take requests now. Raises ConfigError and ExperimentRunning from `start`."""

    def __init__(
        self,
        steering: Steering,
        configs: PolicyConfigs,
        fleet: Callable[[], Sequence[WorkerId]],
        *,
        rng: Random,
        clock: Clock,
    ) -> None:
        self._steering = steering
        self._configs = configs
        self._fleet = fleet
        self._rng = rng
        self._clock = clock
        self.running: Experiment | None = None
        self.past: deque[Report] = deque(maxlen=KEPT_REPORTS)
        self.changed: Callable[[], None] = lambda: None  # called when one has begun or ended here

    def start(self, config: ExperimentConfig) -> Experiment:
        """Begin now. Raises ConfigError for what could not work, ExperimentRunning when one runs already."""
        if self.running is not None:
            raise ExperimentRunning(f"Experiment {self.running.config.name!r} is running. Stop it first.")
        arms = arms_of(config.arms, self._configs, self._rng)
        planned = plan(config.isolation, self._fleet(), [arm.share for arm in arms])
        salt = config.salt or f"{self._rng.getrandbits(64):016x}"
        experiment = self._begin(config, arms, planned, salt, None)
        log.info("experiment %s: started with %s. %s", config.name, ", ".join(config.arms), planned.why)
        self.changed()
        return experiment

    def follow(self, config: ExperimentConfig, planned: Plan, salt: str, started_s: float) -> None:
        """Take part in an experiment that another process of this router has begun."""
        self._begin(config, arms_of(config.arms, self._configs, self._rng), planned, salt, started_s)

    def followed(self, final: Report | None) -> None:
        """The process that leads has no experiment any more, and this is what became of it."""
        if self.running is not None:
            self.running = self._steering.experiment = None
            if final is not None:
                self.past.appendleft(final)

    def _begin(
        self, config: ExperimentConfig, arms: Sequence[Arm], planned: Plan, salt: str, started_s: float | None
    ) -> Experiment:
        experiment = Experiment(config, arms, planned, salt=salt, clock=self._clock, started_s=started_s)
        for arm in arms:
            for worker in self._fleet():
                arm.policy.observe(WorkerJoined(worker=worker, at_s=experiment.started_s))
        self.running = self._steering.experiment = experiment
        return experiment

    def stop(self) -> Report:
        """End it on request. Raises NoExperiment when none runs."""
        if self.running is None:
            raise NoExperiment("No experiment is running.")
        return self._end(self.running, Ending(how="stopped", why="Stopped on request."))

    def record(self, outcome: Outcome) -> None:
        """Sink of Outcomes."""
        if self.running is not None:
            self.running.record(outcome)

    def now(self) -> Report | None:
        """The running experiment as of now; None when there is none."""
        return None if self.running is None else report(self.running, how="running", why="")

    def counts(self) -> list[tuple[str, str, int, int, int]]:
        """(arm, policy, requests, failed, spilled) of the running experiment's arms; empty when none runs."""
        if self.running is None:
            return []
        arms = zip(self.running.arms, self.running.tallies, strict=True)
        return [(arm.name, arm.spec, tally.requests, tally.failed, tally.spilled) for arm, tally in arms]

    def look(self) -> None:
        """End the running experiment if it is time to."""
        if self.running is not None:
            ending = self._ending(self.running)
            if ending is not None:
                self._end(self.running, ending)

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def _ending(self, experiment: Experiment) -> Ending | None:
        if experiment.broken:
            return Ending(how="broken", why="An arm's policy failed; the log says how.")
        lost = experiment.arm_without_workers()
        if lost is not None:
            return Ending(how="fleet", why=f"Arm {lost} has no worker left.")
        judgements = experiment.judgements()
        for name, judgement in judgements.items():
            if judgement.verdict is Verdict.HARM:
                return Ending(how="harm", why=f"Arm {name} harms: {judgement.why}")
        if all(judgement.verdict is not Verdict.RUNNING for judgement in judgements.values()):
            words = {judgement.verdict.value for judgement in judgements.values()}
            why = " ".join(f"{name}: {judgement.why}" for name, judgement in judgements.items())
            return Ending(how=words.pop() if len(words) == 1 else "decided", why=why)
        if experiment.age_s() >= experiment.config.max_s:
            return Ending(how="time", why="Not decided within max_s.")
        return None

    def _end(self, experiment: Experiment, ending: Ending) -> Report:
        self.running = self._steering.experiment = None
        final = report(experiment, how=ending.how, why=ending.why)
        self.past.appendleft(final)
        log.info("experiment %s: %s. %s", experiment.config.name, ending.how, ending.why)
        self.changed()
        return final
