"""How far an estimate may be from the truth when one looks at it again and again. Pure arithmetic.

A fixed 95 % interval, looked at after every request, is wrong far more often than 5 % of the time. The multipliers here
hold at all looks together: asymptotic confidence sequences from Robbins' normal mixture (Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", 2024, theorem 2.2).
Called by compare. Checked by benchmarks/experiment_error_rates.py.
"""

from __future__ import annotations

from math import inf, lgamma, log, sqrt


def multiplier(progress: float, alpha: float, dof: int) -> float:
    """Standard errors on either side of an estimate that hold at every look with probability 1 - alpha.

    `progress` is the information gathered over the information planned: the multiplier is smallest near 1 (3.0 for
    alpha 0.05, against 1.96 for a single look) and grows slowly on either side. `dof` is the degrees of freedom behind
    the standard error; few of them make it wider, as Student's t is wider than the normal. inf before any information.
    """
    if progress <= 0 or dof < 1:
        return inf
    mixed = _best_mixture(alpha) * progress
    return _student(sqrt(2 * (1 + 1 / mixed) * log(sqrt(1 + mixed) / alpha)), dof)


def _best_mixture(alpha: float) -> float:
    """The product of mixing variance and time at which the boundary is tightest (the paper's approximation)."""
    return -2 * log(alpha) + log(1 - 2 * log(alpha))


def _student(z: float, dof: int) -> float:
    """The quantile of Student's t at the same tail as `z` of the normal; Fisher's expansion (Abramowitz and Stegun
    26.7.5), within 1 % for z < 5 and dof >= 19."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / dof + second / dof**2 + third / dof**3


def log_evidence_above(failures: int, trials: int, rate: float) -> float:
    """Log of the evidence that failures come more often than `rate`, which lies strictly between 0 and 1.

    A mixture of all likelihood ratios (uniform prior). Under a true rate of at most `rate` it exceeds log(1 / alpha) at
    any time with probability at most alpha (Ville's inequality). Negative when failures are rarer than `rate`.
    """
    if failures <= rate * trials:
        return -inf if trials else 0.0
    mixture = lgamma(failures + 1) + lgamma(trials - failures + 1) - lgamma(trials + 2)
    return mixture - failures * log(rate) - (trials - failures) * log(1 - rate)
