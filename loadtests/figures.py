"""The figures that policies are compared by: what each is computed from, its unit, and which direction is good.

Pure; a figure is a mean, a percentile or a ratio of sums over requests, so that it can be computed again from any part
of them. Called by differences.py and report.py. Not here: definitions of what is measured (measures.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from loadtests.measures import Objective, RequestResult

Quantity: TypeAlias = Callable[[RequestResult], float | None]
"""A number of one request, None where it has none."""


class Unit(Enum):
    """How a figure is written."""

    SECONDS = "s"
    SHARE = "%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`of` over all requests that have it: its mean, or the percentile `percent`, or sum(of) / sum(per)."""

    key: str
    label: str
    unit: Unit
    of: Quantity
    percent: float | None = None
    per: Quantity | None = None
    more_is_better: bool = False


def figures(objectives: Mapping[str, Objective]) -> Sequence[Figure]:
    """All of them, in the order in which they are shown."""
    return (
        _share("cached", "cached tokens", _cached, per=_prompt, more_is_better=True),
        _seconds("ttft_mean", "TTFT mean", _ttft),
        _seconds("ttft_p50", "TTFT p50", _ttft, 50),
        _seconds("ttft_p90", "TTFT p90", _ttft, 90),
        _seconds("ttft_p99", "TTFT p99", _ttft, 99),
        _seconds("tpot_mean", "TPOT mean", _tpot),
        _seconds("tpot_p99", "TPOT p99", _tpot, 99),
        _seconds("e2e_mean", "E2E mean", _e2e),
        _seconds("e2e_p50", "E2E p50", _e2e, 50),
        _seconds("e2e_p99", "E2E p99", _e2e, 99),
        *(
            _share(f"met_{name}", f"within '{name}'", _met(limits), more_is_better=True)
            for name, limits in objectives.items()
        ),
        _share("errors", "errors", lambda result: float(not result.ok)),
    )


def _seconds(key: str, label: str, of: Quantity, percent: float | None = None) -> Figure:
    return Figure(key=key, label=label, unit=Unit.SECONDS, of=of, percent=percent)


def _share(
    key: str, label: str, of: Quantity, *, per: Quantity | None = None, more_is_better: bool = False
) -> Figure:
    return Figure(key=key, label=label, unit=Unit.SHARE, of=of, per=per, more_is_better=more_is_better)


def _ttft(result: RequestResult) -> float | None:
    return result.ttft_s if result.ok else None


def _tpot(result: RequestResult) -> float | None:
    return result.tpot_s if result.ok else None


def _e2e(result: RequestResult) -> float | None:
    return result.e2e_s if result.ok else None


def _cached(result: RequestResult) -> float | None:
    return None if not result.ok or result.uncached_tokens is None else result.cached_tokens


def _prompt(result: RequestResult) -> float | None:
    return None if not result.ok or result.uncached_tokens is None else result.prompt_tokens


def _met(limits: Objective) -> Quantity:
    return lambda result: float(limits.met_by(result))
