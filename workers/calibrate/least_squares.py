"""Robust non-linear least squares over positive parameters: Levenberg-Marquardt on their logarithms, Huber weights.

Small on purpose: a dozen parameters, some hundred residuals. Needs numpy, which only this module imports. Called by
fit.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

HUBER = 0.1
"""A relative error above this counts linearly instead of squared: a disturbance, not the model."""
STEP = 0.02
"""Relative step of the numeric derivative; predictions are piecewise smooth, so not too small."""
STILL = 1e-4
"""Relative improvement of the loss below which the search ends."""

EXACT = 1e-10
"""Mean loss of a model that fits as well as floating point allows."""
PRIOR = 1e-2
"""Error that a parameter costs where it is e times what it was at the start: what nothing measured stays there."""

Residuals = Callable[[Mapping[str, float]], Sequence[float]]


def minimise(residuals: Residuals, start: Mapping[str, float], *, rounds: int = 40) -> dict[str, float]:
    """Positive parameters for which the residuals are least, from `start` (all positive)."""
    names = list(start)
    logs = np.log([start[name] for name in names])
    begin = logs.copy()

    def at(point: np.ndarray) -> dict[str, float]:
        return dict(zip(names, np.exp(point).tolist(), strict=True))

    def errors(point: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(residuals(at(point)), dtype=float), PRIOR * (point - begin)])

    values = errors(logs)
    loss, damping = _loss(values), 1e-2

    for _ in range(rounds):
        if loss < EXACT * len(values):
            break
        jacobian = np.empty((len(values), len(names)))
        for column in range(len(names)):
            moved = logs.copy()
            moved[column] += STEP
            jacobian[:, column] = (errors(moved) - values) / STEP
        weights = np.minimum(1.0, HUBER / np.maximum(np.abs(values), 1e-12))
        normal = jacobian.T @ (jacobian * weights[:, None])
        gradient = jacobian.T @ (values * weights)
        improved = False
        for _ in range(8):
            bent = normal + damping * np.diag(np.diag(normal) + 1e-9)
            move = np.clip(-np.linalg.solve(bent, gradient), -math.log(4), math.log(4))
            tried = errors(logs + move)
            if (tried_loss := _loss(tried)) < loss:
                improved = loss - tried_loss > STILL * loss
                logs, values, loss = logs + move, tried, tried_loss
                damping = max(damping / 4, 1e-9)
                break
            damping *= 4
        if not improved:
            break
    return at(logs)


def _loss(values: np.ndarray) -> float:
    size = np.abs(values)
    return float(np.sum(np.where(size <= HUBER, size * size / 2, HUBER * (size - HUBER / 2))))
