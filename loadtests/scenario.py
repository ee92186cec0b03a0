"""A scenario: workload x fleet x policies x objectives, read from one TOML file and checked whole before anything runs.

docs/loadtests.md describes the keys. Called by scenario_command.py. Not here: running (scenario_run.py), what traffic a
workload makes (workloads).
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from loadtests.measures import Objective
from loadtests.replay_policy import PolicyError, parsed
from loadtests.toml_record import KeyProblem, check_keys, nearest, record
from loadtests.trace_file import TraceError
from loadtests.traces import Trace, read_trace
from loadtests.workloads import WORKLOADS, Blend, Workload, generate

SHIPPED = Path(__file__).with_name("scenarios")
"""Scenarios that come with the package; named without folder and suffix."""


class ScenarioError(Exception):
    """A scenario that cannot be used. Its message names the file and the key, and says what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Where the traffic comes from: a `kind` with its sizes in `sizes`, or a `trace`.

    `parts` are the kinds of a mix, each with `weight` and sizes. `rate` multiplies how often sessions arrive,
    `max_in_flight` bounds what is sent at once.
    """

    kind: str = ""
    trace: str = ""
    tools: str = ""
    limit: int | None = None
    sessions: int = 100
    sessions_per_s: float = 4.0
    rate: float = 1.0
    max_in_flight: int = 512
    timeout_s: float = 600.0
    parts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    sizes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(bool(self.kind) != bool(self.trace), "give either 'kind' or 'trace'")
        _require(self.limit is None or self.limit >= 1, "'limit' must be at least 1")
        _require(self.sessions >= 1, "'sessions' must be at least 1")
        _require(self.max_in_flight >= 1, "'max_in_flight' must be at least 1")
        for name in ("sessions_per_s", "rate", "timeout_s"):
            _require(getattr(self, name) > 0, f"'{name}' must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """What the policies run on: simulated workers that are started, or running ones at `worker_urls`; a router is
    started before them for each policy. Or `endpoints`, routers that run already, by name: then they are what is
    compared, and `worker_urls` only says whose caches are emptied before each run.
    """

    workers: int = 4
    kv_capacity_tokens: int | None = None
    speed: float = 1.0
    worker_options: tuple[str, ...] = ()
    router_options: tuple[str, ...] = ()
    ready_within_s: float = 60.0
    worker_urls: tuple[str, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        real = bool(self.worker_urls or self.endpoints)
        _require(1 <= self.workers <= 64, "'workers' must be between 1 and 64")
        _require(self.speed > 0, "'speed' must be above 0")
        _require(not real or self.speed == 1, "'speed' needs simulated workers, not 'worker_urls' or 'endpoints'")
        _require(not real or self.kv_capacity_tokens is None, "'kv_capacity_tokens' is for simulated workers")
        for url in (*self.worker_urls, *self.endpoints.values()):
            _require(url.startswith(("http://", "https://")), f"{url!r} is not a URL like http://127.0.0.1:30000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """Limits of one answer in seconds, and the `share` of requests that should meet them."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    share: float = 0.99

    def __post_init__(self) -> None:
        limits = (self.ttft_s, self.tpot_s, self.e2e_s)
        _require(any(limit is not None for limit in limits), "give 'ttft_s', 'tpot_s' or 'e2e_s'")
        _require(all(limit is None or limit > 0 for limit in limits), "limits must be above 0")
        _require(0 < self.share <= 1, "'share' must be above 0 and at most 1")

    @property
    def limits(self) -> Objective:
        return Objective(ttft_s=self.ttft_s, tpot_s=self.tpot_s, e2e_s=self.e2e_s)

    def __str__(self) -> str:
        named = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2E", self.e2e_s))
        return ", ".join(f"{name} <= {limit:g} s" for name, limit in named if limit is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputSpec:
    """How the search for the highest rate goes; see goodput.py. Rates multiply the workload's own."""

    objective: str = ""
    start_rate: float = 1.0
    tolerance: float = 0.1
    confirmations: int = 1
    max_trials: int = 16
    max_minutes: float = 20.0

    def __post_init__(self) -> None:
        _require(self.start_rate > 0, "'start_rate' must be above 0")
        _require(self.tolerance > 0, "'tolerance' must be above 0")
        _require(self.confirmations >= 0, "'confirmations' must not be negative")
        _require(self.max_trials >= 2, "'max_trials' must be at least 2")
        _require(self.max_minutes > 0, "'max_minutes' must be above 0")


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
    policies: tuple[str, ...] = ("round_robin", "prefix_match")
    seed: int = 0
    repetitions: int = 2

    def __post_init__(self) -> None:
        _require(self.repetitions >= 1, "'repetitions' must be at least 1")
        _require(len(self.policies) >= 1, "'policies' must name one")
        _require(len(set(self.policies)) == len(self.policies), "'policies' names one twice")


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


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ValueError(message)
