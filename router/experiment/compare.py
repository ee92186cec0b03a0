"""Differences between two arms, with intervals that may be looked at any time. Pure arithmetic over tallies.

The standard error of a mean counts every group of sessions once (tally), and adds what blocks of time vary beyond
chance. Quantiles: the share of requests below a value gets an interval, which is then read off the histogram (an
inverted test); the difference of two quantiles joins their intervals by the squares of their sides (MOVER: Zou and
Donner, "Construction of confidence limits about effect measures", 2008). Called by judge and routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt

from router.experiment.boundary import multiplier
from router.experiment.tally import QuantileTally, RatioTally

MIN_CLUSTERS = 30
"""Groups and blocks of time an interval needs in each arm: below, the spread between them is itself a guess."""

DOF_SHARE = 2
"""Clusters per degree of freedom: a variance that allows for resemblance in time is less certain than one of as many
independent values (benchmarks/experiment_error_rates.py found 6 % false alarms under bursts with 1, under 5 with 2)."""
NOT_SHARED = 0.5
"""Sessions and time both explain why requests resemble each other, and short sessions do it twice: they are also close
in time. Adding both would count those twice, taking the larger would miss what long sessions add to bursts. Half of the
smaller keeps false alarms under 5 % in every scenario of benchmarks/experiment_error_rates.py."""
MAX_ECHO = 0.9
"""Neighbouring blocks that resemble each other more than this need longer blocks, not more arithmetic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What all comparisons of one experiment share. `planned` is the number of requests per arm at which intervals are
    to be narrowest; `alternates`: arms take turns in time, so that blocks of time, not sessions, are the clusters.
    """

    alpha: float
    planned: int
    alternates: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Treatment minus control in one measure. `low` and `high` are None while there is too little to say.

    `relative*` are the same over the control's value.
    """

    control: float
    treatment: float
    low: float | None
    high: float | None

    @property
    def difference(self) -> float:
        return self.treatment - self.control

    @property
    def relative(self) -> float | None:
        return self._over_control(self.difference)

    @property
    def relative_low(self) -> float | None:
        return self._over_control(self.low)

    @property
    def relative_high(self) -> float | None:
        return self._over_control(self.high)

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def _over_control(self, value: float | None) -> float | None:
        return None if value is None or not self.control else value / self.control


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Variance of a difference of ratios, the clusters behind it, and how much time adds to what sessions explain."""

    variance: float
    clusters: int
    time_factor: float


def mean_difference(control: RatioTally, treatment: RatioTally, design: Design) -> Difference | None:
    """None until both arms have a request with this measure."""
    if control.ratio is None or treatment.ratio is None:
        return None
    spread = spread_of(control, treatment, design)
    low = high = None
    if spread.clusters >= MIN_CLUSTERS and spread.variance > 0:
        progress = _progress(control.count, treatment.count, design.planned)
        half = multiplier(progress, design.alpha, spread.clusters // DOF_SHARE) * sqrt(spread.variance)
        low, high = treatment.ratio - control.ratio - half, treatment.ratio - control.ratio + half
    return Difference(control=control.ratio, treatment=treatment.ratio, low=low, high=high)


def spread_of(control: RatioTally, treatment: RatioTally, design: Design) -> Spread:
    """Both arms need a request. In blocks of time that both arms share, what moves both alike cancels."""
    alone = control.variance_alone() + treatment.variance_alone()
    steps = [b - a for a, b in zip(control.block_influence(), treatment.block_influence(), strict=True)]
    used = [a or b for a, b in zip(control.blocks_used(), treatment.blocks_used(), strict=True)]
    by_time, blocks = long_run_variance([step for step, is_used in zip(steps, used, strict=True) if is_used])
    if design.alternates:
        return Spread(variance=max(by_time, alone), clusters=blocks, time_factor=1.0)
    control_variance, control_groups = control.variance_by_group()
    treatment_variance, treatment_groups = treatment.variance_by_group()
    by_group = max(control_variance + treatment_variance, alone)
    beyond_group, beyond_time = by_group - alone, max(0.0, by_time - alone)
    variance = alone + max(beyond_group, beyond_time) + NOT_SHARED * min(beyond_group, beyond_time)
    clusters = min(blocks, control_groups, treatment_groups)
    return Spread(variance=variance, clusters=clusters, time_factor=variance / by_group if by_group else 1.0)


def long_run_variance(steps: list[float]) -> tuple[float, int]:
    """Variance of the sum of a series whose neighbours resemble each other, and its worth in independent values.

    A first-order autoregression takes out most of the resemblance, Newey and West's kernel the rest (Andrews and
    Monahan, "An improved heteroskedasticity and autocorrelation consistent covariance matrix estimator", 1992).
    """
    count = len(steps)
    squares = sum(step * step for step in steps)
    if count < 3 or not squares:
        return inf if count < 2 else squares, count
    echo = sum(a * b for a, b in pairwise(steps)) / squares
    echo = min(MAX_ECHO, max(0.0, echo + (1 + 3 * echo) / count))  # Kendall's correction of its bias in short series
    fresh = [b - echo * a for a, b in pairwise(steps)]
    total = sum(value * value for value in fresh)
    reach = int(4 * (count / 100) ** (2 / 9))
    for lag in range(1, reach + 1):
        total += 2 * (1 - lag / (reach + 1)) * sum(a * b for a, b in zip(fresh, fresh[lag:], strict=False))
    variance = max(squares, total / (1 - echo) ** 2) * count / (count - 1)
    return variance, int(count * (1 - echo) / (1 + echo))


def quantile_differences(
    control: QuantileTally, treatment: QuantileTally, shares: list[float], spread: Spread, design: Design
) -> list[Difference | None]:
    """One difference per share (0.5 is the median). `spread` is that of the mean *logarithm* of the same measure, which
    a few extreme values do not rule, as they do not rule quantiles."""
    if not control.count or not treatment.count:
        return [None] * len(shares)
    progress = _progress(control.count, treatment.count, design.planned)
    factor: float | None = None
    if spread.clusters >= MIN_CLUSTERS:
        factor = multiplier(progress, design.alpha, spread.clusters // DOF_SHARE) * sqrt(spread.time_factor)
    return [_quantile_difference(control, treatment, share, factor) for share in shares]


def _quantile_difference(
    control: QuantileTally, treatment: QuantileTally, share: float, factor: float | None
) -> Difference:
    (a, a_low, a_high), (b, b_low, b_high) = (_limits(arm, share, factor) for arm in (control, treatment))
    low = high = None
    if a_low is not None and a_high is not None and b_low is not None and b_high is not None:
        low = b - a - sqrt((b - b_low) ** 2 + (a_high - a) ** 2)
        high = b - a + sqrt((b_high - b) ** 2 + (a - a_low) ** 2)
    return Difference(control=a, treatment=b, low=low, high=high)


def _limits(arm: QuantileTally, share: float, factor: float | None) -> tuple[float, float | None, float | None]:
    """A quantile and its limits; None where the histogram does not reach that far yet."""
    middle = arm.quantiles([share])[0]
    assert middle is not None
    if factor is None:
        return middle, None, None
    half = factor * sqrt(share * (1 - share) / arm.count * arm.design_effect(middle))
    low, high = arm.quantiles([share - half, share + half])
    return middle, low, high


def _progress(control: int, treatment: int, planned: int) -> float:
    """Information gathered over that of `planned` requests in each arm."""
    return 2 * control * treatment / (control + treatment) / planned
