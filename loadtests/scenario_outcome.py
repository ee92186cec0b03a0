"""What a scenario's runs amount to: figures per arm, differences with intervals, goodput; and its JSON and CSV.

Everything that a report or a table shows is in one `Outcome`. Called by scenario_command.py. Not here: running
(scenario_run.py), printing (scenario_table.py), HTML (report.py).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadtests.differences import Difference, Results, differences, pooled
from loadtests.figures import Figure, figures
from loadtests.goodput import Goodput
from loadtests.scenario import Scenario
from loadtests.scenario_run import Pass
from loadtests.table import CSV_COLUMNS, csv_row

FORMAT = 1
"""Of the JSON; rises when a key changes its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Where and how it was run: what a reader needs to repeat it. `fleet` says what answered."""

    started_at: str
    command: str
    machine: str
    versions: str
    fleet: Sequence[str]
    virtual: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`values` are figures over all repetitions of an arm, by arm and key; `changes` are against the first arm."""

    scenario: Scenario
    conditions: Conditions
    passes: Sequence[Pass]
    figures: Sequence[Figure]
    values: Mapping[str, Mapping[str, float | None]]
    changes: Sequence[Difference]
    goodput: Sequence[Goodput]

    @property
    def arms(self) -> Sequence[str]:
        """Those that have a run, in the scenario's order."""
        return [arm for arm in self.scenario.arms if any(one.arm == arm for one in self.passes)]

    def of(self, arm: str) -> Sequence[Pass]:
        return [one for one in self.passes if one.arm == arm]

    def change(self, arm: str, figure: str) -> Difference | None:
        return next((one for one in self.changes if (one.arm, one.figure) == (arm, figure)), None)


def outcome(
    scenario: Scenario, conditions: Conditions, passes: Sequence[Pass], goodput: Sequence[Goodput]
) -> Outcome:
    """Differences are of complete repetitions only, those in which every arm ran to its end."""
    shown = figures({name: spec.limits for name, spec in scenario.objectives.items()})
    every = _results(scenario.arms, passes)
    complete = _results(scenario.arms, [one for one in passes if one.run.complete])
    comparable = len(complete) == len(scenario.arms) > 1 and set.intersection(*(set(one) for one in complete.values()))
    return Outcome(
        scenario=scenario,
        conditions=conditions,
        passes=passes,
        figures=shown,
        values=pooled(every, shown),
        changes=differences(complete, shown, seed=scenario.seed) if comparable else (),
        goodput=goodput,
    )


def _results(arms: Sequence[str], passes: Sequence[Pass]) -> dict[str, Results]:
    found: dict[str, Results] = {}
    for arm in arms:
        by_repetition = {one.repetition: one.run.results for one in passes if one.arm == arm}
        if by_repetition:
            found[arm] = by_repetition
    return found


def as_json(result: Outcome) -> bytes:
    """Everything but the single requests, indented. Times are seconds, shares between 0 and 1."""
    scenario = result.scenario
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "format": FORMAT,
                "scenario": scenario.name,
                "title": scenario.title,
                "conditions": msgspec.to_builtins(result.conditions),
                "objectives": msgspec.to_builtins(scenario.objectives),
                "arms": [{"arm": arm, "figures": dict(result.values[arm])} for arm in result.arms],
                "differences": msgspec.to_builtins(result.changes),
                "goodput": msgspec.to_builtins(result.goodput),
                "runs": [
                    {
                        "arm": one.arm,
                        "repetition": one.repetition,
                        "position": one.position,
                        "complete": one.run.complete,
                        **msgspec.to_builtins(one.run.summary),
                    }
                    for one in result.passes
                ],
                "toml": scenario.text,
            }
        )
    )


def write_csv(path: Path, passes: Sequence[Pass]) -> None:
    """One row per request. Raises OSError."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arm", "repetition", *CSV_COLUMNS[1:]))
        for one in passes:
            writer.writerows([one.arm, one.repetition, *csv_row(result)] for result in one.run.results)
