"""The Prometheus metrics of the simulated worker, under SGLang 0.5.21's names. `WorkerMetrics.render` is GET /metrics.

Counters and histograms are filled by rank.py, a few additions per token; gauges are read when scraped. Own code rather
than prometheus_client, whose locks would cost more than the rest of a token. Not here: what /v1/loads says.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from workers.simulated.generation import Generation
from workers.simulated.options import Options

if TYPE_CHECKING:
    from workers.simulated.worker import SimulatedWorker

# Bucket bounds: SGLang 0.5.21, seconds or tokens.
_TTFT_S = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400)
_ITL_S = (
    *(0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.020, 0.025, 0.030, 0.035, 0.040, 0.060, 0.080, 0.100),
    *(0.200, 0.400, 0.600, 0.800, 1.000, 2.000, 4.000, 6.000, 8.000),
)
_E2E_S = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400)
_QUEUE_S = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_TOKENS = (
    *(100, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000, 12500, 15000, 17500),
    *(20000, 22500, 25000, 27500, 30000, 35000, 40000, 66000, 99000, 132000, 300000, 600000, 900000, 1100000),
)


class Histogram:
    """Counts per bucket, total and sum; cumulative only when rendered."""

    __slots__ = ("bounds", "count", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.count += times
        self.sum += value * times


class RankMetrics:
    """What one rank has counted since the start."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.cached_tokens = 0
        self.evicted_tokens = 0
        self.requests = 0
        self.aborted = 0
        self.uncached_prompt = Histogram(_TOKENS)
        self.prompt = Histogram(_TOKENS)
        self.generation = Histogram(_TOKENS)
        self.ttft_s = Histogram(_TTFT_S)
        self.itl_s = Histogram(_ITL_S)
        self.e2e_s = Histogram(_E2E_S)
        self.queue_s = Histogram(_QUEUE_S)

    def tokens(self, generation: Generation, new: int, now_s: float) -> None:
        """`generation` has produced `new` more tokens at `now_s`; the first of all counts to TTFT."""
        if generation.last_token_s is None:
            self.ttft_s.observe(now_s - generation.arrived_s)
            new -= 1
        if new > 0 and generation.last_token_s is not None:
            self.itl_s.observe((now_s - generation.last_token_s) / new, new)

    def finished(self, generation: Generation, now_s: float) -> None:
        """`generation` has come to its own end."""
        prompt = len(generation.prompt)
        self.requests += 1
        self.prompt_tokens += prompt
        self.cached_tokens += generation.cached_tokens
        self.generation_tokens += generation.produced
        self.prompt.observe(prompt)
        self.uncached_prompt.observe(prompt - generation.cached_tokens)
        self.generation.observe(generation.produced)
        self.e2e_s.observe(now_s - generation.arrived_s)


class HttpCount:
    """Requests of one path and method, by the path's template: all there were and those being answered."""

    __slots__ = ("active", "total")

    def __init__(self) -> None:
        self.active = 0
        self.total = 0


class WorkerMetrics:
    """All ranks' metrics and the text that Prometheus scrapes."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._http: dict[tuple[str, str], HttpCount] = {}
        self._ranks = [RankMetrics() for _ in range(options.dp_size)]

    def of_rank(self, rank: int) -> RankMetrics:
        return self._ranks[rank]

    def http(self, endpoint: str, method: str) -> HttpCount:
        """The count of a known path; the caller adds to it."""
        return self._http.setdefault((endpoint, method), HttpCount())

    def render(self, worker: SimulatedWorker) -> bytes:
        """The exposition text, format 0.0.4."""
        lines: list[str] = []
        labels = [self._labels(rank) for rank in range(len(self._ranks))]
        loads = [rank.load() for rank in worker.ranks]
        capacity = self._options.kv_capacity_tokens
        gauges = {
            "num_running_reqs": [load["num_running_reqs"] for load in loads],
            "num_queue_reqs": [load["num_waiting_reqs"] for load in loads],
            "num_used_tokens": [load["num_used_tokens"] for load in loads],
            "token_usage": [load["token_usage"] for load in loads],
            "full_token_usage": [load["token_usage"] for load in loads],
            "cache_hit_rate": [load["cache_hit_rate"] for load in loads],
            "gen_throughput": [load["gen_throughput"] for load in loads],
            "utilization": [load["utilization"] for load in loads],
            "max_total_num_tokens": [capacity for _ in loads],
            "page_size": [self._options.page_size for _ in loads],
            "num_pages": [capacity // self._options.page_size for _ in loads],
            "context_len": [self._options.context_length for _ in loads],
        }
        lines.append("# TYPE simulated_lag_seconds gauge")  # the one name that is not SGLang's
        lines += [
            f"simulated_lag_seconds{{{label}}} {rank.lag_s}" for label, rank in zip(labels, worker.ranks, strict=True)
        ]
        for name, values in gauges.items():
            lines.append(f"# TYPE sglang:{name} gauge")
            lines += [f"sglang:{name}{{{label}}} {value}" for label, value in zip(labels, values, strict=True)]
        for name, kind in (("http_requests_total", "counter"), ("http_requests_active", "gauge")):
            lines.append(f"# TYPE sglang:{name} {kind}")
            lines += [
                f'sglang:{name}{{endpoint="{endpoint}",method="{method}"}} '
                f"{count.total if kind == 'counter' else count.active}"
                for (endpoint, method), count in self._http.items()
            ]
        self._counters(lines, labels)
        self._histograms(lines, labels)
        return ("\n".join(lines) + "\n").encode()

    def _labels(self, rank: int) -> str:
        name = self._options.model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        label = f'engine_type="unified",model_name="{name}",tp_rank="0",pp_rank="0",moe_ep_rank="0"'
        return label if self._options.dp_size == 1 else f'{label},dp_rank="{rank}"'

    def _counters(self, lines: list[str], labels: Sequence[str]) -> None:
        def add(name: str, values: Iterable[int], extra: str = "") -> None:
            lines.append(f"# TYPE sglang:{name} counter")
            lines.extend(
                f"sglang:{name}{{{label}{extra}}} {value}" for label, value in zip(labels, values, strict=True)
            )

        add("prompt_tokens_total", (rank.prompt_tokens for rank in self._ranks))
        add("generation_tokens_total", (rank.generation_tokens for rank in self._ranks))
        add("cached_tokens_total", (rank.cached_tokens for rank in self._ranks), ',cache_source="device"')
        add("num_requests_total", (rank.requests for rank in self._ranks))
        add("num_aborted_requests_total", (rank.aborted for rank in self._ranks))
        add("evicted_tokens_total", (rank.evicted_tokens for rank in self._ranks))

    def _histograms(self, lines: list[str], labels: Sequence[str]) -> None:
        named = {
            "time_to_first_token_seconds": [rank.ttft_s for rank in self._ranks],
            "inter_token_latency_seconds": [rank.itl_s for rank in self._ranks],
            "e2e_request_latency_seconds": [rank.e2e_s for rank in self._ranks],
            "queue_time_seconds": [rank.queue_s for rank in self._ranks],
            "prompt_tokens_histogram": [rank.prompt for rank in self._ranks],
            "uncached_prompt_tokens_histogram": [rank.uncached_prompt for rank in self._ranks],
            "generation_tokens_histogram": [rank.generation for rank in self._ranks],
        }
        for name, histograms in named.items():
            lines.append(f"# TYPE sglang:{name} histogram")
            for label, histogram in zip(labels, histograms, strict=True):
                seen = 0
                bounds = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
                for shown, count in zip(bounds, histogram.counts, strict=True):
                    seen += count
                    lines.append(f'sglang:{name}_bucket{{{label},le="{shown}"}} {seen}')
                lines.append(f"sglang:{name}_sum{{{label}}} {histogram.sum}")
                lines.append(f"sglang:{name}_count{{{label}}} {histogram.count}")
