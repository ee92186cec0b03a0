"""What a fleet could do at best: one pooled cache of the fleet's total size, and a queue that keeps every engine busy.

The yardstick of sweeps: its token hit ratio, and the rate at which such a fleet is busy a given share of the time.
Deterministic arithmetic over a trace; no engine runs. Called by replay_sweep.py.

- Pooled cache: requests in order of arrival, each served at once; LRU over whole prompt blocks, workers x capacity
  tokens in all; answers take no room. No policy over separate caches reaches its hit ratio but by luck of LRU.
- Work of a request: prefill of the tokens that the pooled cache misses, alone in its steps of at most
  `chunked_prefill_tokens`; and for each output token its share of a decode step in a full batch, as many requests as
  the mean one's KV leaves room for on one worker (at most `max_running_requests`).
- Busy share: work over workers x the time from the first arrival to the last. A real fleet computes for longer, because
  its decode batches are not full and its caches not shared; so a share of 0.95 overloads most policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.replay import ReplayConfig
from loadtests.replay_source import ReplayRequest, ReplayTraffic
from router.prefix.block_sizes import units_until
from router.prefix.recent_blocks import RecentBlocks
from workers.simulated.cost_model import PrefillChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Ideal:
    """`token_hit_ratio` of the pooled cache. `work_s` in seconds of one engine, `span_s` between first and last arrival
    of the trace as it is; `workers` share the work.
    """

    token_hit_ratio: float
    work_s: float
    span_s: float
    workers: int

    def busy_share(self, rate: float) -> float:
        """At arrivals `rate` times as fast."""
        return self.work_s * rate / (self.workers * self.span_s)

    def rate(self, busy_share: float) -> float:
        """The rate at which the busy share is this."""
        return busy_share * self.workers * self.span_s / self.work_s


def ideal(traffic: ReplayTraffic, config: ReplayConfig) -> Ideal:
    """Raises ValueError for a trace whose requests all come at once: no rate would change its load."""
    requests = traffic.requests
    span_s = requests[-1].arrival_s - requests[0].arrival_s
    if span_s <= 0:
        raise ValueError(f"{traffic.name}: all requests arrive at the same time, so its load cannot be scaled")
    cache = RecentBlocks()
    tokens = sum(one.prompt_tokens for one in requests)
    batch = _full_batch(requests, config)
    cached_tokens, work_s = 0, 0.0
    for order, one in enumerate(requests):
        cached = min(int(units_until(cache.match(one.key.blocks)) * one.key.unit_tokens), one.prompt_tokens - 1)
        cache.insert(one.key.blocks, order)
        cache.trim_units(max(1, int(config.workers * config.capacity_tokens / one.key.unit_tokens)))
        cached_tokens += cached
        work_s += _prefill_s(one.prompt_tokens, cached, config) + _decode_s(one, batch, config)
    return Ideal(token_hit_ratio=cached_tokens / tokens, work_s=work_s, span_s=span_s, workers=config.workers)


def _full_batch(requests: Sequence[ReplayRequest], config: ReplayConfig) -> int:
    """Requests of mean size whose KV fits on one worker, weighed by how long they decode."""
    held = sum(one.output_tokens * (one.prompt_tokens + one.output_tokens / 2) for one in requests)
    mean_tokens = held / max(1, sum(one.output_tokens for one in requests))
    return max(1, min(config.max_running_requests, int(config.capacity_tokens / max(1.0, mean_tokens))))


def _prefill_s(prompt_tokens: int, cached_tokens: int, config: ReplayConfig) -> float:
    seconds, done = 0.0, cached_tokens
    while done < prompt_tokens:
        new = min(config.chunked_prefill_tokens, prompt_tokens - done)
        seconds += config.cost_model.prefill_s((PrefillChunk(new, done),))
        done += new
    return seconds


def _decode_s(request: ReplayRequest, batch: int, config: ReplayConfig) -> float:
    model = config.cost_model
    context = request.prompt_tokens + request.output_tokens / 2
    each = model.decode_step_base_s / batch + model.decode_request_s + context * model.decode_context_s
    return max(0, request.output_tokens - 1) * each  # the first token comes with the prefill
