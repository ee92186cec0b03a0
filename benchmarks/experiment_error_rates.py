"""How often an experiment cries wolf, and how many requests it needs: A/A and power tables by simulation.

    python benchmarks/experiment_error_rates.py --experiments 1000 > benchmarks/experiment_error_rates.txt

Simulated traffic with known truth goes through the router's own tallies and intervals, which are looked at again and
again; an experiment is a false alarm when any look excludes zero. Seeded: the same flags give the same figures. Needs
numpy (extra: loadtest). The test of the same claim in small is tests/router/experiment/test_error_rates.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log, sqrt

import numpy as np

from router.experiment.compare import Design, mean_difference, quantile_differences, spread_of
from router.experiment.tally import GROUPS, QuantileTally, RatioTally, TimeGrid

BLOCK_S = 10.0
QUANTILES = (0.5, 0.9)
POWER_REQUESTS = 100_000
MEASURES = ("mean", "p50", "p90", "errors")
NAIVE = ("one look", "peeking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Traffic of one kind. TTFT = 0.3 s x exp(session + request + burst), each normal; a burst is an AR(1) in time of
    each arm's own queue. `turns`: mean requests of a session. `window_s`: arms take turns in windows this long.
    """

    name: str
    turns: float = 1.0
    session_sigma: float = 0.0
    request_sigma: float = 0.8
    burst_sigma: float = 0.0
    burst_s: float = 30.0
    drift: float = 0.0
    window_s: float | None = None
    pause_s: float = 10.0
    per_s: float = 5.0
    error_rate: float = 0.02


SCENARIOS = (
    Scenario(name="independent requests"),
    Scenario(name="sessions of 8", turns=8, session_sigma=0.6),
    Scenario(name="sessions of 8 and bursts", turns=8, session_sigma=0.6, burst_sigma=0.4, per_s=2.0),
    Scenario(name="API keys of 80 and bursts", turns=80, pause_s=60.0, session_sigma=0.4, burst_sigma=0.4,
             per_s=2.0),
    Scenario(name="alternating in time, with drift", turns=8, session_sigma=0.6, burst_sigma=0.3, drift=0.5,
             window_s=30.0, per_s=2.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests of one experiment in order of time."""

    at_s: np.ndarray
    treatment: np.ndarray
    group: np.ndarray
    ttft_s: np.ndarray
    failed: np.ndarray


def traffic(scenario: Scenario, requests: int, effect: float, rng: np.random.Generator) -> Traffic:
    """`requests` in all (both arms); the treatment's TTFT is (1 + effect) times as long."""
    length_s = requests / scenario.per_s
    lead_s = scenario.turns * scenario.pause_s
    sessions = int(1.1 * scenario.per_s * (length_s + lead_s) / scenario.turns) + 8
    turns = rng.geometric(1 / scenario.turns, sessions)
    session = np.repeat(np.arange(sessions), turns)
    start = np.repeat(rng.uniform(-scenario.turns * scenario.pause_s, length_s, sessions), turns)
    pause = rng.exponential(scenario.pause_s, len(session))
    passed = np.cumsum(pause)
    first = np.concatenate(([0], np.cumsum(turns)[:-1]))
    at_s = start + passed - np.repeat(passed[first], turns)
    kept = np.flatnonzero((at_s >= 0) & (at_s < length_s))
    kept = kept[np.argsort(at_s[kept], kind="stable")][:requests]
    at_s, session = at_s[kept], session[kept]
    if scenario.window_s is None:
        arm = rng.integers(0, 2, sessions)[session]
        group = rng.integers(0, GROUPS, sessions)[session]
    else:
        window = (at_s / scenario.window_s).astype(int)
        first_arm = rng.integers(0, 2, int(window[-1]) // 2 + 2)
        arm = (first_arm[window // 2] + window) % 2
        group = window // 2 % GROUPS
    log_ttft = (
        np.log(0.3)
        + rng.normal(0, scenario.session_sigma, sessions)[session]
        + rng.normal(0, scenario.request_sigma, len(at_s))
        + _bursts(scenario, length_s, rng)[arm, (at_s / 5).astype(int)]
        + scenario.drift * at_s / length_s
    )
    return Traffic(
        at_s=at_s,
        treatment=arm.astype(bool),
        group=group,
        ttft_s=np.exp(log_ttft) * np.where(arm == 1, 1 + effect, 1.0),
        failed=rng.random(len(at_s)) < scenario.error_rate,
    )


def _bursts(scenario: Scenario, length_s: float, rng: np.random.Generator) -> np.ndarray:
    steps = int(length_s / 5) + 2
    keep = np.exp(-5 / scenario.burst_s)
    noise = rng.normal(0, scenario.burst_sigma, (2, steps))
    for step in range(1, steps):
        noise[:, step] = keep * noise[:, step - 1] + sqrt(1 - keep**2) * noise[:, step]
    return noise


class Arm:
    def __init__(self, grid: TimeGrid) -> None:
        self.ttft = RatioTally(grid)
        self.log_ttft = RatioTally(grid)
        self.errors = RatioTally(grid)
        self.quantiles = QuantileTally()


def looks(
    scenario: Scenario, requests: int, effect: float, rng: np.random.Generator, every: int, planned: int
) -> Iterator[tuple[int, dict[str, bool]]]:
    """(requests so far, which measures exclude zero) after every `every` requests."""
    made = traffic(scenario, requests, effect, rng)
    design = Design(alpha=0.05, planned=planned, alternates=scenario.window_s is not None)
    grid = TimeGrid(0.0, BLOCK_S if scenario.window_s is None else 2 * scenario.window_s)
    arms = Arm(grid), Arm(grid)
    columns = zip(
        made.at_s.tolist(), made.treatment.tolist(), made.group.tolist(), made.ttft_s.tolist(), made.failed.tolist(),
        strict=True,
    )  # fmt: skip
    for seen, (at_s, treatment, group, ttft_s, failed) in enumerate(columns, start=1):
        block = grid.block(at_s)
        arm = arms[treatment]
        arm.ttft.add(ttft_s, 1.0, group, block)
        arm.log_ttft.add(log(ttft_s), 1.0, group, block)
        arm.errors.add(float(failed), 1.0, group, block)
        arm.quantiles.add(ttft_s, group)
        if seen % every == 0:
            yield seen, _excluded(arms, design)


def _excluded(arms: tuple[Arm, Arm], design: Design) -> dict[str, bool]:
    control, treatment = arms
    if control.ttft.count < 2 or treatment.ttft.count < 2:
        return {}
    spread = spread_of(control.log_ttft, treatment.log_ttft, design)
    found = [
        mean_difference(control.ttft, treatment.ttft, design),
        *quantile_differences(control.quantiles, treatment.quantiles, list(QUANTILES), spread, design),
        mean_difference(control.errors, treatment.errors, design),
    ]
    result = {name: bool(each and each.excludes_zero) for name, each in zip(MEASURES, found, strict=True)}
    naive_se = sqrt(control.ttft.variance_alone() + treatment.ttft.variance_alone())
    gap = (treatment.ttft.ratio or 0.0) - (control.ttft.ratio or 0.0)
    return result | {"naive": abs(gap) > 1.96 * naive_se}


def false_alarms(
    scenario: Scenario, *, experiments: int, requests: int, look_every: int, seed: int
) -> dict[str, float]:
    """Share of A/A experiments in which any look excluded zero, by measure; `one look` and `peeking` are what an
    ordinary 95 % interval of the mean does at the end, and at every look."""
    alarms = dict.fromkeys((*MEASURES, *NAIVE), 0)
    for number in range(experiments):
        seen: set[str] = set()
        last: dict[str, bool] = {}
        rng = np.random.default_rng([seed, number])
        for _, last in looks(scenario, requests, 0.0, rng, look_every, requests // 2):
            seen |= {name for name, excluded in last.items() if excluded}
        for name in MEASURES:
            alarms[name] += name in seen
        alarms["peeking"] += "naive" in seen
        alarms["one look"] += last.get("naive", False)
    return {name: count / experiments for name, count in alarms.items()}


def requests_needed(
    scenario: Scenario, *, effect: float, experiments: int, requests: int, look_every: int, seed: int
) -> dict[str, tuple[int | None, int | None]]:
    """Requests (both arms together) after which half, and nine tenths, of the experiments found the effect; None where
    they did not within `requests`."""
    first: dict[str, list[float]] = {name: [] for name in MEASURES[:3]}
    for number in range(experiments):
        rng = np.random.default_rng([seed, 1, number])
        found: dict[str, int] = {}
        for seen, excluded in looks(scenario, requests, effect, rng, look_every, requests // 4):
            for name in first:
                if excluded.get(name) and name not in found:
                    found[name] = seen
            if len(found) == len(first):
                break
        for name, when in first.items():
            when.append(found.get(name, np.inf))
    return {
        name: (_finite(np.quantile(when, 0.5, method="higher")), _finite(np.quantile(when, 0.9, method="higher")))
        for name, when in first.items()
    }


def _finite(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1000, help="A/A experiments per scenario")
    parser.add_argument("--requests", type=int, default=4000, help="requests of one A/A experiment, both arms")
    parser.add_argument("--look-every", type=int, default=200, help="requests between two looks")
    parser.add_argument("--power-experiments", type=int, default=40, help="experiments per scenario with a true effect")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"A/A: {given.experiments} experiments, {given.requests} requests each, a look every {given.look_every}.")
    print("Share in which any look found a difference that is not there (nominal: at most 5 %), in percent.\n")
    names = (*MEASURES, *NAIVE)
    print(f"{'traffic':34}" + "".join(f"{name:>10}" for name in names))
    for scenario in SCENARIOS:
        rates = false_alarms(
            scenario, experiments=given.experiments, requests=given.requests, look_every=given.look_every,
            seed=given.seed,
        )  # fmt: skip
        print(f"{scenario.name:34}" + "".join(f"{100 * rates[name]:10.1f}" for name in names), flush=True)
    print("\n`one look` and `peeking`: an ordinary 95 % interval of the mean that takes every request for independent,")
    print("looked at once at the end, and at every look.")
    print(f"\nPower: a TTFT that is truly 10 % lower; {given.power_experiments} experiments of each kind, ", end="")
    print(f"up to {POWER_REQUESTS:,} requests.")
    print("Requests (both arms together) until half | nine tenths of the experiments had found it.\n")
    print(f"{'traffic':34}" + "".join(f"{name:>18}" for name in MEASURES[:3]))
    for scenario in SCENARIOS:
        needed = requests_needed(
            replace(scenario, drift=0.0), effect=-0.1, experiments=given.power_experiments, requests=POWER_REQUESTS,
            look_every=1000, seed=given.seed,
        )  # fmt: skip
        cells = (f"{half or '-'} | {most or '-'}" for half, most in needed.values())
        print(f"{scenario.name:34}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
