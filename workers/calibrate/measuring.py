"""Runs experiments one after another on whatever runs them, and tells how far it is. Called by commands.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from workers.calibrate.experiment import Experiment, Run
from workers.calibrate.http_runner import ServerProblem

Progress = Callable[[Experiment], None]
"""Told of each experiment before it runs."""


class Runner(Protocol):
    """What can run an experiment: a server over HTTP, or an engine on a virtual clock."""

    async def run(self, experiment: Experiment) -> Run: ...


async def run_all(
    runner: Runner, experiments: Sequence[Experiment], progress: Progress, runs: list[Run] | None = None
) -> list[Run]:
    """All runs, in order, also added to `runs` as they come, so that a caller has them when one fails.

    Raises ServerProblem when every call of an experiment fails.
    """
    runs = [] if runs is None else runs
    for experiment in experiments:
        progress(experiment)
        run = await runner.run(experiment)
        errors = [timing.error for timing in run.timings if timing.error is not None]
        if len(errors) == len(run.timings):
            raise ServerProblem(f"{experiment.name}: every call failed; the first: {errors[0]}")
        runs.append(run)
    return runs
