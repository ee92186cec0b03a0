"""The figures of a run that the fit makes equal: one list for each experiment, the same for real and simulated runs.

Medians over repetitions and over steps, so that single disturbances do not count. Called by fit.py and its report.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from workers.calibrate.experiment import Run, Timing
from workers.calibrate.prompts import length

FORWARD_START, FORWARD_END = "forward_entry_time", "prefill_finished_time"
"""SGLang's names, in meta_info of /generate."""


class Feature(NamedTuple):
    """`name` says what is measured; `seconds` is its value; `weight` how much it counts."""

    name: str
    seconds: float
    weight: float = 1.0


def tells_forward(run: Run) -> bool:
    """Whether the server told when each prompt's first step began and its last one ended (SGLang with metrics on)."""
    return all(_forward_s(timing) is not None for timing in run.timings)


def features(run: Run, *, forward: bool) -> list[Feature]:
    """Empty for runs that measure nothing, or where calls failed. With `forward`, also what happened inside the engine;
    the run must tell.
    """
    if any(timing.error is not None for timing in run.timings):
        return []
    group = run.experiment.group
    if group in {"prefill", "text"}:
        return _single(run, forward=forward)
    if group == "burst":
        return _burst(run)
    if group == "decode":
        return [Feature(f"{run.experiment.name}: ITL", _together_gap_s(run.timings), 2.0)]
    if group == "shared":  # the first call only brings the context
        return [Feature(f"{run.experiment.name}: ITL", _together_gap_s(run.timings[1:]), 2.0)]
    if group == "mixed":
        return _mixed(run)
    return []


def _single(run: Run, *, forward: bool) -> list[Feature]:
    """TTFT of a prompt alone: the median of those that bring a first segment of their own, or of those that find the
    first call's cached.
    """
    calls = run.experiment.calls
    shared = [call.prompt[0] == calls[0].prompt[0] for call in calls]
    cached = all(shared) and len(calls) > 1
    timings = run.timings[1:] if cached else run.timings
    name = run.experiment.name
    whole_s = median(timing.ttft_s for timing in timings)
    if not forward:
        return [Feature(f"{name}: TTFT", whole_s)]
    inside_s = median(_forward_s(timing) or 0.0 for timing in timings)
    if run.experiment.group == "text":  # what reading the text takes; its one new token is no prompt worth modelling
        return [Feature(f"{name}: outside of the engine", max(whole_s - inside_s, 1e-5))]
    return [Feature(f"{name}: TTFT", whole_s), Feature(f"{name}: forward", inside_s)]


def _forward_s(timing: Timing) -> float | None:
    """From the start of the prompt's first step to the end of its last, where the server told (with its metrics on)."""
    started_s, ended_s = timing.meta.get(FORWARD_START), timing.meta.get(FORWARD_END)
    if not started_s or not ended_s or ended_s <= started_s:
        return None
    return ended_s - started_s


def _burst(run: Run) -> list[Feature]:
    """When the last of those that waited had its token, since the blocker had."""
    last_s = max(timing.token_s[0] for timing in run.timings[1:])
    return [Feature(f"{run.experiment.name}: last", max(last_s - run.timings[0].token_s[0], 1e-5))]


def _together_gap_s(timings: Sequence[Timing]) -> float:
    """Median seconds per token while all calls decode; of all their gaps, where they never do."""
    from_s = max(timing.token_s[0] for timing in timings)
    until_s = min(timing.token_s[-1] for timing in timings)
    gaps = []
    for timing in timings:
        inside = [
            (at_s, count)
            for at_s, count in zip(timing.token_s, timing.token_counts, strict=True)
            if from_s < at_s <= until_s
        ]
        if len(inside) > 3:
            gaps.append((inside[-1][0] - inside[0][0]) / (inside[-1][1] - inside[0][1]))
    return median(gaps) if gaps else median(gap for timing in timings for gap in timing.gaps_s())


def _mixed(run: Run) -> list[Feature]:
    """TTFT of prompts that arrive while others decode, by length."""
    ttfts: dict[int, list[float]] = {}
    for call, timing in zip(run.experiment.calls, run.timings, strict=True):
        if call.after_first:
            ttfts.setdefault(length(call.prompt), []).append(timing.ttft_s)
    return [
        Feature(f"{run.experiment.name}: TTFT of {tokens} meanwhile", median(values))
        for tokens, values in ttfts.items()
    ]
