"""How arms differ from the first one, with 95 % intervals: a paired bootstrap over blocks of sessions.

Requests of one session, and sessions close in time, share caches and queues, so single requests are not independent.
The sessions of a repetition are therefore cut into blocks of neighbours by arrival; all arms got the same sessions, so
a resampled set of blocks is the same for each, and what one block contributes to the difference is paired. Percentile
intervals (Efron and Tibshirani, 1993, chapter 13) of 2,000 draws. Blocks near each other still influence each other,
so with few repetitions intervals are rather too narrow than too wide. Called by scenario_outcome.py. Needs numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from loadtests.figures import Figure
from loadtests.measures import RequestResult

DRAWS = 2000
FEWEST_BLOCKS = 6
"""With fewer blocks no interval is given: resampling so few says little."""
_BLOCKS_PER_REPETITION = 20
_CONFIDENCE = 95.0
_DRAWS_AT_ONCE = 100  # bounds memory: this many rows of one number per request

Floats: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Results: TypeAlias = Mapping[int, Sequence[RequestResult]]
"""Results of one arm by repetition."""


class Verdict(Enum):
    """What an interval says."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure of one arm against the first. `change` is relative to it (-0.4: 40 % less); for shares it is the plain
    difference. `low` and `high` bound the change; None where there are too few blocks, or nothing to divide by.
    """

    arm: str
    figure: str
    value: float | None
    baseline: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: Verdict


def differences(
    results: Mapping[str, Results], figures: Sequence[Figure], *, seed: int = 0
) -> Sequence[Difference]:
    """Every figure of every arm but the first. Only repetitions that every arm has are used."""
    baseline, *others = results
    common = sorted(set.intersection(*(set(one) for one in results.values())))
    blocks = _Blocks(results[baseline], common)
    draws = blocks.draws(np.random.default_rng(seed))
    found = []
    for figure in figures:
        before = _values(results[baseline], common, blocks, figure)
        for arm in others:
            after = _values(results[arm], common, blocks, figure)
            found.append(_difference(arm, figure, before, after, draws))
    return found


def pooled(results: Mapping[str, Results], figures: Sequence[Figure]) -> Mapping[str, Mapping[str, float | None]]:
    """Every figure of every arm over all its repetitions together, by arm and the figure's key."""
    found: dict[str, Mapping[str, float | None]] = {}
    for arm, by_repetition in results.items():
        repetitions = sorted(by_repetition)
        blocks = _Blocks(by_repetition, repetitions)
        found[arm] = {one.key: _values(by_repetition, repetitions, blocks, one).whole() for one in figures}
    return found


class _Blocks:
    """Neighbouring sessions of each repetition, numbered through all repetitions."""

    def __init__(self, baseline: Results, repetitions: Sequence[int]) -> None:
        self._numbers: dict[tuple[int, str], int] = {}
        self.count = 0
        for repetition in repetitions:
            starts: dict[str, float] = {}
            for result in baseline[repetition]:
                starts[result.session_id] = min(result.start_s, starts.get(result.session_id, result.start_s))
            names = sorted(starts, key=lambda name: starts[name])
            blocks = min(_BLOCKS_PER_REPETITION, len(names))
            for rank, name in enumerate(names):
                self._numbers[repetition, name] = self.count + rank * blocks // len(names)
            self.count += blocks

    def of(self, repetition: int, session_id: str) -> int | None:
        return self._numbers.get((repetition, session_id))

    def draws(self, rng: np.random.Generator) -> Counts | None:
        """How often each block is in each draw; None when there are too few blocks."""
        if self.count < FEWEST_BLOCKS:
            return None
        return rng.multinomial(self.count, np.full(self.count, 1 / self.count), size=DRAWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Values:
    """One figure's numbers, in ascending order, with the block of each; `weights` is what a ratio divides by."""

    figure: Figure
    numbers: Floats
    weights: Floats
    blocks: Counts

    def whole(self) -> float | None:
        every = np.ones((1, int(self.blocks.max(initial=-1)) + 1), dtype=np.int64)
        value = float(self.resampled(every)[0]) if len(self.numbers) else np.nan
        return None if np.isnan(value) else value

    def resampled(self, draws: Counts) -> Floats:
        """The figure of each draw, NaN where a draw has no numbers."""
        parts = [
            self._some(draws[start : start + _DRAWS_AT_ONCE]) for start in range(0, len(draws), _DRAWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _some(self, draws: Counts) -> Floats:
        counts = draws[:, self.blocks]
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.figure.percent is None:
                mean: Floats = (counts @ self.numbers) / (counts @ self.weights)
                return mean
        return self._percentile(counts, self.figure.percent)

    def _percentile(self, counts: Counts, percent: float) -> Floats:
        """Linear between the closest ranks, as measures.percentile, each number repeated as often as it was drawn."""
        through = counts.cumsum(axis=1)
        totals = through[:, -1]
        positions = (totals - 1) * percent / 100
        low = np.array([self._at(row, rank) for row, rank in zip(through, np.floor(positions), strict=True)])
        high = np.array([self._at(row, rank) for row, rank in zip(through, np.ceil(positions), strict=True)])
        result: Floats = low + (high - low) * (positions - np.floor(positions))
        return result

    def _at(self, through: Counts, rank: float) -> float:
        if through[-1] == 0:
            return np.nan
        return float(self.numbers[np.searchsorted(through, rank, side="right")])


def _values(results: Results, repetitions: Sequence[int], blocks: _Blocks, figure: Figure) -> _Values:
    rows = []
    for repetition in repetitions:
        for result in results[repetition]:
            number, block = figure.of(result), blocks.of(repetition, result.session_id)
            weight = 1.0 if figure.per is None else figure.per(result)
            if number is not None and weight is not None and block is not None:
                rows.append((number, weight, block))
    rows.sort()
    numbers, weights, numbered = zip(*rows, strict=True) if rows else ((), (), ())
    return _Values(
        figure=figure,
        numbers=np.array(numbers, dtype=np.float64),
        weights=np.array(weights, dtype=np.float64),
        blocks=np.array(numbered, dtype=np.int64),
    )


def _difference(arm: str, figure: Figure, before: _Values, after: _Values, draws: Counts | None) -> Difference:
    baseline, value = before.whole(), after.whole()
    low = high = change = None
    relative = figure.unit.value == "s"
    if baseline is not None and value is not None and not (relative and baseline == 0):
        change = value / baseline - 1 if relative else value - baseline
        if draws is not None:
            was, now = before.resampled(draws), after.resampled(draws)
            with np.errstate(invalid="ignore", divide="ignore"):
                changes = now / was - 1 if relative else now - was
            changes = changes[np.isfinite(changes)]
            if len(changes) > DRAWS // 2:
                low, high = map(float, np.percentile(changes, [50 - _CONFIDENCE / 2, 50 + _CONFIDENCE / 2]))
    return Difference(
        arm=arm,
        figure=figure.key,
        value=value,
        baseline=baseline,
        change=change,
        low=low,
        high=high,
        verdict=_verdict(low, high, more_is_better=figure.more_is_better),
    )


def _verdict(low: float | None, high: float | None, *, more_is_better: bool) -> Verdict:
    if low is None or high is None or low <= 0 <= high:
        return Verdict.UNCLEAR
    return Verdict.BETTER if (low > 0) == more_is_better else Verdict.WORSE
