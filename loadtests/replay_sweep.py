"""Many cells of replay: a plan from a TOML file, run by several processes, one JSON line per cell.

A cell is trace x workers x capacity x load x seed x policy. Lines are appended as cells end, and a cell that the file
holds is not run again, so an interrupted sweep goes on where it stopped. Called by replay_sweep_command.py.
Not here: the table (replay_sweep_table.py), one cell (replay.py), what a load means (replay_ideal.py).
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path

import msgspec
from xxhash import xxh3_64_hexdigest

from loadtests.replay import ReplayConfig, replay
from loadtests.replay_ideal import Ideal, ideal
from loadtests.replay_load import load_traffic
from loadtests.replay_policy import PolicyError, parsed
from loadtests.replay_report import Figures, figures
from loadtests.replay_source import ReplayTraffic
from workers.simulated.cost_file import read_cost_model
from workers.simulated.cost_model import H200_QWEN3_8B, PARAMETERS, CostModel

PEERS = ("smg_cache_aware", "dynamo_cost", "llmd_weighted", "production_stack_prefix")


class SweepError(Exception):
    """A plan that cannot be run; the message names file and field."""


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bound on a figure of every judged policy, in the cells of `traces` (parts of their file names; none: all) whose
    ideal fleet is busy between `busy_from` and `busy_to`. `figure`: a field of replay_report.Figures. `against`: a
    policy, "best_peer", or "pooled" (then `at_most` is what may be missing to the pooled cache's token hit ratio, else
    the ratio to the other's figure).
    """

    name: str
    figure: str
    against: str
    at_most: float = 1.0
    traces: tuple[str, ...] = ()
    busy_from: float = 0.0
    busy_to: float = 100.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sweep. `traces` are files or names of workloads. The load of a cell is a `rate` (arrivals that many times as
    fast) or a `busy` share of the ideal fleet (replay_ideal.py). `jitter_s` moves each session's start, so that seeds
    differ on traces whose clock does not tick. `exact`: as ReplayConfig has it. `cost_model` is a file of the engines'
    timing, "" for the default.
    `baseline` and `peers` are what all other policies are compared with.
    """

    traces: tuple[str, ...]
    policies: tuple[str, ...] = ()
    baseline: str = "round_robin"
    peers: tuple[str, ...] = PEERS
    workers: tuple[int, ...] = (8,)
    capacities: tuple[int, ...] = (699_103,)
    busy: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    turns: str = "overlap"
    jitter_s: float = 10.0
    load_poll_s: float = 1.0
    objective_s: float = 1.0
    exact: bool = False
    cost_model: str = ""
    judged: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()

    def all_policies(self) -> tuple[str, ...]:
        """Baseline, peers, policies; each once."""
        return tuple(dict.fromkeys((self.baseline, *self.peers, *self.policies)))


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One run, and the identity of its line. `timing` is a digest of the engines' parameters: results of others are not
    taken for these.
    """

    trace: str
    limit: int | None
    turns: str
    workers: int
    capacity_tokens: int
    load: str
    rate: float
    seed: int
    policy: str
    jitter_s: float
    load_poll_s: float
    objective_s: float
    exact: bool
    cost_model: str
    timing: str

    def config(self) -> ReplayConfig:
        return ReplayConfig(
            cost_model=_cost_model(self.cost_model),
            workers=self.workers,
            capacity_tokens=self.capacity_tokens,
            rate=self.rate,
            seed=self.seed,
            jitter_s=self.jitter_s,
            load_poll_s=self.load_poll_s,
            objective_s=self.objective_s,
            exact=self.exact,
        )


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell gave, beside what the ideal fleet would: one line of the file."""

    cell: Cell
    figures: Figures
    ideal_hit_ratio: float
    ideal_busy_ratio: float


def read_plan(path: Path) -> Plan:
    """Raises SweepError, which names file and field."""
    try:
        plan = msgspec.toml.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise SweepError(f"{path}: {error.strerror}") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise SweepError(f"{path}: {error}") from error
    problems: Mapping[str, bool] = {
        "field 'traces' names nothing": not plan.traces,
        "give a load: 'busy' (shares of an ideal fleet) or 'rates'": not (plan.busy or plan.rates),
        "field 'turns' is 'overlap' or 'wait'": plan.turns not in ("overlap", "wait"),
        "loads must be above 0": any(load <= 0 for load in (*plan.busy, *plan.rates)),
        "field 'figure' of a target is none": any(
            target.figure not in Figures.__struct_fields__ for target in plan.targets
        ),
        "fields 'workers' and 'capacities' hold numbers of at least 1": min((*plan.workers, *plan.capacities, 1)) < 1,
    }
    for problem, found in problems.items():
        if found:
            raise SweepError(f"{path}: {problem}")
    try:
        for policy in plan.all_policies():
            parsed(policy)
    except PolicyError as error:
        raise SweepError(f"{path}: {error}") from error
    return plan


def cells(plan: Plan) -> Iterator[tuple[Cell, Ideal]]:
    """Every cell of the plan, with the ideal of its fleet. Reads all traces; raises TraceError, OSError and
    ValueError."""
    model = _cost_model(plan.cost_model)
    timing = xxh3_64_hexdigest(repr(sorted((name, getattr(model, name)) for name in PARAMETERS)))
    for trace, workers, capacity in product(plan.traces, plan.workers, plan.capacities):
        fleet = ReplayConfig(workers=workers, capacity_tokens=capacity, cost_model=model)
        best = ideal(_traffic(trace, plan.limit, plan.turns), fleet)
        loads = [(f"busy {share:g}", best.rate(share)) for share in plan.busy]
        loads += [(f"rate {rate:g}", rate) for rate in plan.rates]
        for (load, rate), seed, policy in product(loads, plan.seeds, plan.all_policies()):
            yield (
                Cell(
                    trace=trace,
                    limit=plan.limit,
                    turns=plan.turns,
                    workers=workers,
                    capacity_tokens=capacity,
                    load=load,
                    rate=rate,
                    seed=seed,
                    policy=policy,
                    jitter_s=plan.jitter_s,
                    load_poll_s=plan.load_poll_s,
                    objective_s=plan.objective_s,
                    exact=plan.exact,
                    cost_model=plan.cost_model,
                    timing=timing,
                ),
                best,
            )


def read_lines(path: Path) -> list[Line]:
    """Lines of an earlier run; none when there is no such file. A last line that was cut short does not count. Raises
    SweepError for a file that holds something else.
    """
    if not path.exists():
        return []
    decoder = msgspec.json.Decoder(Line)
    raw = path.read_bytes()
    whole = raw.splitlines() if raw.endswith(b"\n") else raw.splitlines()[:-1]
    try:
        return [decoder.decode(line) for line in whole]
    except msgspec.DecodeError as error:
        raise SweepError(f"{path}: not the results of a sweep: {error}") from error


def run_sweep(
    todo: Sequence[tuple[Cell, Ideal]], path: Path, *, jobs: int, on_line: Callable[[Line], None] | None = None
) -> list[Line]:
    """Runs the cells in `jobs` processes (one: in this), appends each line to `path` as it ends, returns them in order
    of completion. Interrupted, it stops when the cells under way have ended; theirs are lost, all others in the
    file.
    """
    lines: list[Line] = []
    _repair(path)
    with path.open("ab") as file:
        for cell, best, row in _rows_here(todo) if jobs == 1 else _rows_elsewhere(todo, jobs):
            line = _line(cell, best, row)
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            lines.append(line)
            if on_line is not None:
                on_line(line)
    return lines


def _rows_here(todo: Sequence[tuple[Cell, Ideal]]) -> Iterator[tuple[Cell, Ideal, Figures]]:
    for cell, best in todo:
        yield cell, best, _run_cell(cell)


def _rows_elsewhere(todo: Sequence[tuple[Cell, Ideal]], jobs: int) -> Iterator[tuple[Cell, Ideal, Figures]]:
    """Rows as they end. One cell more is handed out than can run: nobody waits, and little is lost when we stop."""
    remaining = iter(todo)
    running: dict[Future[Figures], tuple[Cell, Ideal]] = {}
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        while True:
            for cell, best in islice(remaining, jobs + 1 - len(running)):
                running[pool.submit(_run_cell, cell)] = (cell, best)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield *running.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _line(cell: Cell, best: Ideal, row: Figures) -> Line:
    busy = best.busy_share(cell.rate)
    return Line(cell=cell, figures=row, ideal_hit_ratio=best.token_hit_ratio, ideal_busy_ratio=busy)


def _repair(path: Path) -> None:
    """Cuts off a last line without its end, so that what is appended starts a line of its own."""
    if path.exists() and (raw := path.read_bytes()) and not raw.endswith(b"\n"):
        path.write_bytes(raw[: raw.rfind(b"\n") + 1])


def _ignore_interrupts() -> None:
    """In a process of the pool: Ctrl-C reaches it too, and is for the parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_cell(cell: Cell) -> Figures:
    """In a process of the pool."""
    return figures(replay(_traffic(cell.trace, cell.limit, cell.turns), cell.policy, cell.config()))


@lru_cache(maxsize=2)
def _cost_model(path: str) -> CostModel:
    return read_cost_model(Path(path)) if path else H200_QWEN3_8B


@lru_cache(maxsize=2)
def _traffic(trace: str, limit: int | None, turns: str) -> ReplayTraffic:
    return load_traffic(trace, limit=limit, wait=turns == "wait")
