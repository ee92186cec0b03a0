"""An experiment as JSON: its arms, how they are kept apart and why, every measure with its interval, the verdict.

What `GET /experiment`, the command and the dashboard show. Called by desk. Not here: what the figures mean (judge).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from router.experiment.compare import Difference
from router.experiment.judge import Judgement, Measured
from router.experiment.live import Experiment

Report: TypeAlias = dict[str, Any]


def report(experiment: Experiment, *, how: str, why: str) -> Report:
    """`how` is `running` or how it ended, `why` a sentence. Ratios are shares of 1, durations seconds."""
    config = experiment.config
    judgements = experiment.judgements()
    return {
        "name": config.name,
        "state": how,
        "why": why,
        "age_s": round(experiment.age_s(), 1),
        "warming_up": experiment.age_s() < config.warmup_s,
        "isolation": experiment.plan.isolation.value,
        "isolation_why": experiment.plan.why,
        "salt": experiment.salt,
        "primary": config.primary,
        "alpha": config.alpha,
        "planned_requests": config.planned_requests,
        "notes": list(experiment.notes),
        "arms": [_arm(experiment, place) for place in range(len(experiment.arms))],
        "comparisons": [
            _comparison(str(experiment.arms[0].name), str(name), judgement) for name, judgement in judgements.items()
        ],
    }


def _arm(experiment: Experiment, place: int) -> dict[str, Any]:
    arm, tally = experiment.arms[place], experiment.tallies[place]
    return {
        "name": arm.name,
        "policy": arm.spec,
        "share": arm.share,
        "workers": experiment.workers_of(place),
        "requests": tally.requests,
        "failed": tally.failed,
        "spilled": tally.spilled,
        "clients_gone": tally.clients_gone,
    }


def _comparison(control: str, treatment: str, judgement: Judgement) -> dict[str, Any]:
    return {
        "control": control,
        "treatment": treatment,
        "verdict": judgement.verdict.value,
        "why": judgement.why,
        "measures": [_measured(each) for each in judgement.measured],
    }


def _measured(each: Measured) -> dict[str, Any]:
    return {
        "measure": each.measure,
        "unit": each.unit,
        "higher_is_better": each.higher_is_better,
        **(_difference(each.difference) if each.difference else dict.fromkeys(_DIFFERENCE)),
    }


_DIFFERENCE = (
    "control", "treatment", "difference", "low", "high", "relative", "relative_low", "relative_high",
)  # fmt: skip


def _difference(found: Difference) -> dict[str, float | None]:
    return {name: getattr(found, name) for name in _DIFFERENCE}
