"""When the requests of a replay come: the trace's times, spread within its clock's ticks, moved by the seed, scaled.

Pure. Called by replay_clock.py.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from loadtests.replay_config import ReplayConfig
from loadtests.replay_source import ReplayRequest


def arrivals(requests: Sequence[ReplayRequest], config: ReplayConfig) -> list[float]:
    """When each request comes, in seconds from the trace's first, after `spread`, `jitter_s` and `rate`.

    A trace whose clock ticks (Mooncake's conversation trace, every 3 s) gives many requests the same timestamp. Each
    such group is spread evenly at random over the time to the next timestamp, but at most over one tick, the median
    distance of timestamps.
    """
    start_s = requests[0].arrival_s
    times = [request.arrival_s - start_s for request in requests]
    if config.spread:
        times = _spread(times, random.Random(f"arrivals:{config.seed}"))
    if config.jitter_s:
        times = _jittered(requests, times, config.jitter_s, random.Random(f"jitter:{config.seed}"))
    return [time / config.rate for time in times]


def _jittered(
    requests: Sequence[ReplayRequest], times: Sequence[float], jitter_s: float, rng: Random
) -> list[float]:
    later: dict[str, float] = {}
    moved = []
    for index, (request, time) in enumerate(zip(requests, times, strict=True)):
        session = request.session_id or f"request-{index}"
        if session not in later:
            later[session] = rng.random() * jitter_s
        moved.append(time + later[session])
    return moved


def _spread(times: Sequence[float], rng: Random) -> list[float]:
    distinct = sorted(set(times))
    gaps = [after - before for before, after in pairwise(distinct)]
    if not gaps or len(distinct) == len(times):
        return list(times)
    tick_s = sorted(gaps)[len(gaps) // 2]
    room = dict(zip(distinct, [min(gap, tick_s) for gap in gaps] + [tick_s], strict=True))
    counts: dict[float, int] = {}
    for time in times:
        counts[time] = counts.get(time, 0) + 1
    offsets = {
        time: iter(sorted(rng.random() * room[time] for _ in range(count)) if count > 1 else [0.0])
        for time, count in counts.items()
    }
    return [time + next(offsets[time]) for time in times]
