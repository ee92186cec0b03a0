"""What is sent to a server and when, and what came back: records of calls, and their JSON.

An `Experiment` is a set of calls that may wait for each other; a `Run` is what one server did with it. Written by the
runners, read by features.py and the reports. Not here: how calls are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from workers.calibrate.prompts import Prompt, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One generation. It starts `delay_s` after the last of the calls with the indices `after` has ended, or, with
    `after_first`, has had its first token; `delay_s` after the experiment's start where it waits for none.

    `text`: sent as text instead of token ids, so that the server must tokenize it.
    """

    prompt: Prompt
    output_tokens: int
    after: tuple[int, ...] = ()
    after_first: bool = False
    delay_s: float = 0.0
    text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Calls that are measured together, on a cache that is empty at the start where `flush`.

    `group` says which measure it yields: "prefill", "burst", "decode", "shared", "mixed", "text", "load".
    """

    name: str
    group: str
    calls: tuple[Call, ...]
    flush: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One call as its client saw it, in seconds since the experiment's start.

    `token_s[i]` is when the event arrived that brought the answer to `token_counts[i]` tokens. `meta` holds what
    numbers the server's last event told of the call.
    """

    sent_s: float
    token_s: tuple[float, ...] = ()
    token_counts: tuple[int, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None
    meta: Mapping[str, float] = field(default_factory=dict)

    @property
    def ttft_s(self) -> float:
        """From sending to the first token. The call must have succeeded."""
        return self.token_s[0] - self.sent_s

    @property
    def e2e_s(self) -> float:
        """From sending to the last token."""
        return self.token_s[-1] - self.sent_s

    def gaps_s(self) -> list[float]:
        """Seconds per token after the first event; an event with several tokens counts as often, with equal shares."""
        gaps: list[float] = []
        pairs = list(zip(self.token_s, self.token_counts, strict=True))
        for (before_s, before), (now_s, now) in pairwise(pairs):
            tokens = now - before
            gaps += [(now_s - before_s) / tokens] * tokens if tokens > 0 else []
        return gaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one server did with one experiment; `timings` are those of its calls, in order."""

    experiment: Experiment
    timings: tuple[Timing, ...]


def run_as_json(run: Run) -> dict[str, Any]:
    """For a file of measurements. Times are rounded to 10 us."""
    experiment = run.experiment
    return {
        "name": experiment.name,
        "group": experiment.group,
        "flush": experiment.flush,
        "calls": [
            {
                "prompt": [list(segment) for segment in call.prompt],
                "output_tokens": call.output_tokens,
                "after": list(call.after),
                "after_first": call.after_first,
                "delay_s": round(call.delay_s, 5),
                "text": call.text,
                "sent_s": round(timing.sent_s, 5),
                "token_s": [round(at_s, 5) for at_s in timing.token_s],
                "token_counts": list(timing.token_counts),
                "prompt_tokens": timing.prompt_tokens,
                "cached_tokens": timing.cached_tokens,
                "error": timing.error,
                "meta": dict(timing.meta),
            }
            for call, timing in zip(experiment.calls, run.timings, strict=True)
        ],
    }


def run_from_json(data: Mapping[str, Any]) -> Run:
    """What `run_as_json` made. Raises KeyError, TypeError or ValueError for anything else."""
    rows: Sequence[Mapping[str, Any]] = data["calls"]
    calls = tuple(
        Call(
            prompt=tuple(Segment(int(seed), int(tokens)) for seed, tokens in row["prompt"]),
            output_tokens=int(row["output_tokens"]),
            after=tuple(row["after"]),
            after_first=bool(row["after_first"]),
            delay_s=float(row["delay_s"]),
            text=bool(row["text"]),
        )
        for row in rows
    )
    timings = tuple(
        Timing(
            sent_s=float(row["sent_s"]),
            token_s=tuple(row["token_s"]),
            token_counts=tuple(row["token_counts"]),
            prompt_tokens=int(row["prompt_tokens"]),
            cached_tokens=int(row["cached_tokens"]),
            error=row["error"],
            meta=row["meta"],
        )
        for row in rows
    )
    experiment = Experiment(name=data["name"], group=data["group"], calls=calls, flush=bool(data["flush"]))
    return Run(experiment=experiment, timings=timings)
