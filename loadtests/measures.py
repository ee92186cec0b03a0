"""What we measure and how each figure is defined: one record per request, one summary per run.

Pure arithmetic over records; no HTTP, no clock, no numpy. The live driver and the virtual-time replay fill the same
`RequestResult`, so their summaries compare like for like.

- TTFT: from the moment the request was sent to the first event that carries output (text, reasoning or a tool call).
- ITL: the pauses between consecutive output events of one answer, pooled over all answers (as sglang.bench_serving
  pools them). An event that carries several tokens counts as one pause.
- TPOT: (E2E - TTFT) / (completion tokens - 1), one value per answer of two tokens or more.
- E2E: from sending to the end of the answer.
- Cached-token ratio: cached tokens over prompt tokens, both as reported by workers, summed over the answers that
  report them. A ratio of sums: long prompts weigh more.
- Imbalance: the busiest worker's share over the mean share; 1 is even, N means one of N workers did everything.
- Goodput: answers per second that met every limit of an objective; failures never do.
- Percentiles interpolate linearly between the two closest ranks (numpy's default, type 7 of Hyndman and Fan, 1996).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class ErrorKind(Enum):
    """How a request failed. Values are stable: CSV and JSON use them."""

    CONNECTION = "connection"  # no answer at all: refused, reset, or hung up before a status
    HTTP_STATUS = "http_status"  # an answer with a status of 400 or more
    STREAM_ERROR = "stream_error"  # an error event inside a stream
    TRUNCATED = "truncated"  # the stream ended without [DONE]
    TIMEOUT = "timeout"  # longer than the client waits
    PROTOCOL = "protocol"  # an answer that is not what the API promises


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """One request as its sender saw it. Times are seconds; `start_s` counts from the start of the run.

    `lag_s` is how late it was sent, because the driver was at its concurrency limit or busy; an open loop needs it
    near zero. Token counts are the worker's own report, None where it gave none. `gaps_s` are the pauses of ITL.
    """

    session_id: str
    turn: int
    start_s: float
    e2e_s: float
    workload: str = ""
    lag_s: float = 0.0
    ttft_s: float | None = None
    gaps_s: Sequence[float] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    worker: str | None = None
    error: ErrorKind | None = None
    error_detail: str = ""

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def uncached_tokens(self) -> int | None:
        """Prompt tokens that the worker had to compute."""
        if self.prompt_tokens is None or self.cached_tokens is None:
            return None
        return self.prompt_tokens - self.cached_tokens

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first, None for answers shorter than two tokens."""
        if self.ttft_s is None or self.completion_tokens is None or self.completion_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.completion_tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Count, mean, chosen percentiles and maximum of one quantity, in its own unit."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    def scaled(self, factor: float) -> Distribution:
        """The distribution of every value times `factor`, which must not be negative."""
        return Distribution(
            count=self.count,
            mean=self.mean * factor,
            p50=self.p50 * factor,
            p90=self.p90 * factor,
            p99=self.p99 * factor,
            max=self.max * factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Limits that one answer must meet to count towards goodput, in seconds; None does not limit.

    `tpot_s` bounds the mean pause of an answer; answers of one token meet it.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def met_by(self, result: RequestResult) -> bool:
        return (
            result.ok
            and _within(self.ttft_s, result.ttft_s, unknown=False)
            and _within(self.tpot_s, result.tpot_s, unknown=True)
            and _within(self.e2e_s, result.e2e_s, unknown=False)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in figures. Latencies are of answered requests only; None where nothing was measured.

    `duration_s` runs from the first send to the last end. `imbalance_requests` counts answered requests per worker,
    `imbalance_uncached` the prompt tokens each had to compute, which is the work that routing moves about.
    """

    requests: int
    errors: int
    error_kinds: Mapping[str, int]
    duration_s: float
    request_rate: float
    output_token_rate: float
    prompt_tokens: int
    cached_tokens: int
    cached_token_ratio: float | None
    ttft_s: Distribution | None
    itl_s: Distribution | None
    tpot_s: Distribution | None
    e2e_s: Distribution | None
    lag_s: Distribution | None
    imbalance_requests: float | None
    imbalance_uncached: float | None
    requests_by_worker: Mapping[str, int] = field(default_factory=dict)
    goodput_rate: float | None = None
    goodput_ratio: float | None = None


def summarize(
    results: Sequence[RequestResult], *, workers: Sequence[str] = (), objective: Objective | None = None
) -> Summary:
    """The summary of a run. `workers` names the whole fleet, so that a worker which served nothing counts as zero;
    without it only workers seen in `results` count. Goodput is None without an objective.
    """
    answered = [result for result in results if result.ok]
    duration_s = _duration_s(results)
    reported = [result for result in answered if result.uncached_tokens is not None]
    prompt_tokens = sum(result.prompt_tokens or 0 for result in reported)
    cached_tokens = sum(result.cached_tokens or 0 for result in reported)
    served = totals_by_worker(answered, lambda _: 1, workers)
    good = None if objective is None else sum(objective.met_by(result) for result in results)
    return Summary(
        requests=len(results),
        errors=len(results) - len(answered),
        error_kinds=dict(Counter(result.error.value for result in results if result.error is not None)),
        duration_s=duration_s,
        request_rate=_per(len(answered), duration_s),
        output_token_rate=_per(sum(result.completion_tokens or 0 for result in answered), duration_s),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        cached_token_ratio=cached_tokens / prompt_tokens if prompt_tokens else None,
        ttft_s=distribution(result.ttft_s for result in answered if result.ttft_s is not None),
        itl_s=distribution(gap for result in answered for gap in result.gaps_s),
        tpot_s=distribution(tpot for result in answered if (tpot := result.tpot_s) is not None),
        e2e_s=distribution(result.e2e_s for result in answered),
        lag_s=distribution(result.lag_s for result in results),
        imbalance_requests=imbalance(served),
        imbalance_uncached=imbalance(totals_by_worker(reported, lambda result: result.uncached_tokens or 0, workers)),
        requests_by_worker=served,
        goodput_rate=None if good is None else _per(good, duration_s),
        goodput_ratio=None if good is None or not results else good / len(results),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The percentile of values in ascending order, by linear interpolation. Raises ValueError when there are none."""
    if not ordered:
        raise ValueError("no percentile of no values")
    position = (len(ordered) - 1) * percent / 100
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def distribution(values: Iterable[float]) -> Distribution | None:
    """None when there are no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Distribution(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        max=ordered[-1],
    )


def totals_by_worker(
    results: Iterable[RequestResult], quantity: Callable[[RequestResult], int], workers: Sequence[str] = ()
) -> dict[str, int]:
    """The sum of `quantity` per worker, zero for those of `workers` that served nothing; unknown workers left out."""
    totals = dict.fromkeys(workers, 0)
    for result in results:
        if result.worker is not None:
            totals[result.worker] = totals.get(result.worker, 0) + quantity(result)
    return totals


def imbalance(totals: Mapping[str, float]) -> float | None:
    """Largest over mean. None when there is nothing to share out."""
    whole = math.fsum(totals.values())
    return max(totals.values()) * len(totals) / whole if whole > 0 else None


def _within(limit: float | None, value: float | None, *, unknown: bool) -> bool:
    if limit is None:
        return True
    return unknown if value is None else value <= limit


def _duration_s(results: Sequence[RequestResult]) -> float:
    if not results:
        return 0.0
    return max(result.start_s + result.e2e_s for result in results) - min(result.start_s for result in results)


def _per(amount: float, duration_s: float) -> float:
    return amount / duration_s if duration_s > 0 else 0.0
