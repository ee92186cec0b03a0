"""A scenario: workload x fleet x policies x objectives, read from one TOML file and checked whole before anything runs.

docs/loadtests.md describes the keys. Called by scenario_command.py. Not here: running (scenario_run.py), what traffic a
workload makes (workloads).
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from loadtests.replay_policy import PolicyError, parsed
from loadtests.scenario_spec import FleetSpec, GoodputSpec, ObjectiveSpec, WorkloadSpec, require
from loadtests.toml_record import KeyProblem, check_keys, nearest, record
from loadtests.trace_file import TraceError
from loadtests.traces import Trace, read_trace
from loadtests.workloads import WORKLOADS, Blend, Workload, generate

SHIPPED = Path(__file__).with_name("scenarios")
"""Scenarios that come with the package; named without folder and suffix."""


class ScenarioError(Exception):
    """A scenario that cannot be used. Its message names the file and the key, and says what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All of it. The first of `arms` is what the others are compared with. `text` is the file as it was read."""

    name: str
    title: str
    about: str
    folder: Path
    text: str
    policies: tuple[str, ...]
    workload: WorkloadSpec
    fleet: FleetSpec
    objectives: Mapping[str, ObjectiveSpec]
    goodput: GoodputSpec
    seed: int = 0
    repetitions: int = 2

    @property
    def arms(self) -> Sequence[str]:
        """What is compared: policies, or endpoints that run already."""
        return tuple(self.fleet.endpoints) or self.policies

    @property
    def goodput_objective(self) -> tuple[str, ObjectiveSpec] | None:
        """The objective of the search: the one it names, or the first."""
        if not self.objectives:
            return None
        name = self.goodput.objective or next(iter(self.objectives))
        return name, self.objectives[name]

    def traffic(self, repetition: int) -> Trace:
        """The requests of one repetition: new texts and arrivals of a workload each time, a trace as it is. Raises
        ScenarioError.
        """
        spec, seed = self.workload, self.seed + repetition
        try:
            if spec.trace:
                tools = self.folder / spec.tools if spec.tools else None
                return read_trace(self.folder / spec.trace, limit=spec.limit, tools=tools)
            made = generate(_workload(spec, seed), sessions=spec.sessions, sessions_per_s=spec.sessions_per_s)
        except (TraceError, KeyProblem) as error:
            raise ScenarioError(f"{self.name}: {error}") from error
        return made[: spec.limit]


    def check_traffic(self) -> None:
        """Raises ScenarioError for a trace that cannot be read and sizes that cannot be."""
        if self.workload.trace:
            self.traffic(0)
            return
        try:
            _workload(self.workload, self.seed)
        except KeyProblem as error:
            raise ScenarioError(f"{self.name}: {error}") from error


def read_scenario(path: Path) -> Scenario:
    """The scenario of a file, its workload checked. Raises ScenarioError."""
    try:
        text = path.read_text()
        tree = tomllib.loads(text)
        scenario = _scenario(tree, path, text)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from error
    except (KeyProblem, PolicyError) as error:
        raise ScenarioError(f"{path}: {error}") from error
    scenario.check_traffic()
    return scenario


def find_scenario(named: str) -> Path:
    """A file, or one of those that come with the package by its name. Raises ScenarioError, which lists them."""
    path = Path(named)
    if path.is_file():
        return path
    shipped = {one.stem: one for one in sorted(SHIPPED.glob("*.toml"))}
    if named in shipped:
        return shipped[named]
    hint = nearest(named, list(shipped))
    raise ScenarioError(f"{named}: no such file.{hint} Scenarios that come with Trieway: {', '.join(shipped)}.")


_TOP = ("title", "about", "policies", "seed", "repetitions", "workload", "fleet", "objectives", "goodput")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Top:
    """The keys that are no tables."""

    title: str = ""
    about: str = ""
    policies: tuple[str, ...] = ("round_robin", "expected_ttft")
    seed: int = 0
    repetitions: int = 2

    def __post_init__(self) -> None:
        require(self.repetitions >= 1, "'repetitions' must be at least 1")
        require(len(self.policies) >= 1, "'policies' must name one")
        require(len(set(self.policies)) == len(self.policies), "'policies' names one twice")


def _scenario(tree: Mapping[str, Any], path: Path, text: str) -> Scenario:
    check_keys(tree, _TOP, "")
    names = [one.name for one in dataclasses.fields(_Top)]
    try:
        top = msgspec.convert({key: value for key, value in tree.items() if key in names}, _Top)
    except msgspec.ValidationError as error:
        raise KeyProblem(str(error).replace("`$.", "`")) from error
    fleet = record(tree.get("fleet", {}), FleetSpec, "fleet")
    if not fleet.endpoints:
        for policy in top.policies:
            parsed(policy)
    elif "policies" in tree:
        raise KeyProblem("'policies' cannot be set for 'fleet.endpoints', which run already; leave it out")
    objectives = tree.get("objectives", {})
    if not isinstance(objectives, Mapping):
        raise KeyProblem("'objectives' must hold tables, one per objective: [objectives.interactive]")
    scenario = Scenario(
        name=path.stem,
        title=top.title or path.stem,
        about=top.about,
        folder=path.parent,
        text=text,
        policies=top.policies,
        workload=_workload_spec(tree.get("workload", {})),
        fleet=fleet,
        objectives={name: record(one, ObjectiveSpec, f"objectives.{name}") for name, one in objectives.items()},
        goodput=record(tree.get("goodput", {}), GoodputSpec, "goodput"),
        seed=top.seed,
        repetitions=top.repetitions,
    )
    named = scenario.goodput.objective
    if named and named not in scenario.objectives:
        raise KeyProblem(f"goodput.objective: there is no [objectives.{named}].{nearest(named, scenario.objectives)}")
    return scenario


def _workload_spec(table: object) -> WorkloadSpec:
    """Keys of the spec stay, others are sizes of the kind."""
    if not isinstance(table, Mapping):
        raise KeyProblem("'workload' must be a table, [workload]")
    own = [one.name for one in dataclasses.fields(WorkloadSpec) if one.name != "sizes"]
    sizes = {key: value for key, value in table.items() if key not in own}
    kind = table.get("kind")
    if isinstance(kind, str) and kind not in WORKLOADS:
        raise KeyProblem(f"workload.kind: there is no kind '{kind}'.{nearest(kind, WORKLOADS)} Kinds: "
                         f"{', '.join(WORKLOADS)}.")  # fmt: skip
    known = _sizes(kind) if isinstance(kind, str) else []
    check_keys(sizes, [*own, *known] if sizes else [], "workload")
    if "parts" in table and kind != "mix":
        raise KeyProblem("[workload.parts] is for kind = \"mix\"")
    return record({**{key: table[key] for key in table if key in own}, "sizes": sizes}, WorkloadSpec, "workload")


def _workload(spec: WorkloadSpec, seed: int) -> Workload:
    """Raises KeyProblem."""
    if not spec.parts:
        return _of_kind(spec.kind, spec.sizes, seed, "workload")
    parts = []
    for name, table in spec.parts.items():
        where = f"workload.parts.{name}"
        if name not in WORKLOADS or name == "mix":
            raise KeyProblem(f"[{where}]: there is no kind '{name}'.{nearest(name, WORKLOADS)}")
        weight = table.get("weight", 1.0)
        if not isinstance(weight, int | float) or weight < 0:
            raise KeyProblem(f"{where}.weight: must be a number, not negative")
        sizes = {key: value for key, value in table.items() if key != "weight"}
        check_keys(sizes, ["weight", *_sizes(name)], where)
        parts.append((float(weight), _of_kind(name, sizes, seed, where)))
    try:
        return Blend(parts, seed=seed)
    except ValueError as error:
        raise KeyProblem(f"[workload.parts]: {error}") from error


def _of_kind(name: str, sizes: Mapping[str, object], seed: int, where: str) -> Workload:
    made: Workload = record({**sizes, "seed": seed}, WORKLOADS[name], where)
    return made


def _sizes(kind: str) -> list[str]:
    record_type: Any = WORKLOADS[kind]
    return [one.name for one in dataclasses.fields(record_type) if one.name != "seed"]
