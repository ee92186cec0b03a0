"""A replay's worker gives exactly what its engine would, stepped one iteration at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from loadtests.replay_worker import ReplayWorker
from router.types import WorkerId
from workers.simulated.cost_model import H200_QWEN3_8B
from workers.simulated.engine import Engine, TokenOutput
from workers.simulated.engine_config import EngineConfig
from workers.simulated.request import EngineRequest


@dataclass(frozen=True)
class Job:
    """A prompt of `shared` equal tokens and `own` different ones, `gap_s` after the job before."""

    shared: int
    own: int
    output_tokens: int
    gap_s: float

    def request(self, index: int, page_size: int) -> EngineRequest:
        own = [1000 * (index + 1) + position for position in range(self.own)]
        return EngineRequest.of_tokens(
            rid=str(index),
            prompt=[7] * self.shared + own,
            output=[500_000 + position for position in range(self.output_tokens)],
            page_size=page_size,
        )


JOBS = st.lists(
    st.builds(
        Job,
        shared=st.integers(1, 30),
        own=st.integers(0, 30),
        output_tokens=st.integers(0, 60),
        gap_s=st.sampled_from([0.0, 0.005, 0.05, 1.0]),
    ),
    min_size=1,
    max_size=12,
)
CONFIGS = st.builds(
    EngineConfig,
    kv_capacity_tokens=st.sampled_from([128, 300, 5000]),
    page_size=st.sampled_from([1, 4, 16]),
    max_running_requests=st.sampled_from([2, 50]),
    chunked_prefill_tokens=st.sampled_from([16, 64]),
    max_prefill_tokens=st.just(64),
    overlap=st.booleans(),
)
Event = tuple[str, bool, bool, int]


def one_by_one(jobs: list[Job], config: EngineConfig) -> list[tuple[float, Event]]:
    """First tokens and ends by an engine that never folds steps. What comes while it is idle starts a step at once."""
    engine = Engine(config, H200_QWEN3_8B)
    coming = arrivals(jobs, config)
    now_s = 0.0
    seen: list[tuple[float, Event]] = []
    while coming or not engine.idle:
        while coming and coming[0][0] < now_s:
            arrived_s, request = coming.pop(0)
            engine.submit(request, arrived_s)
        if engine.idle:
            now_s, request = coming.pop(0)
            engine.submit(request, now_s)
        result = engine.step(now_s)
        now_s += result.duration_s
        seen += told(result.outputs, now_s)
    return seen


def told(outputs: Sequence[TokenOutput], now_s: float) -> list[tuple[float, Event]]:
    return [
        (now_s, (one.rid, one.first, one.finished, one.cached_tokens)) for one in outputs if one.first or one.finished
    ]


def arrivals(jobs: list[Job], config: EngineConfig) -> list[tuple[float, EngineRequest]]:
    at_s, coming = 0.0, []
    for index, job in enumerate(jobs):
        at_s += job.gap_s
        coming.append((at_s, job.request(index, config.page_size)))
    return coming


def lazily(jobs: list[Job], config: EngineConfig, asks_s: list[float]) -> list[tuple[float, Event]]:
    """The same by a ReplayWorker, which is asked for its load in between."""
    worker = ReplayWorker(WorkerId("w"), config, H200_QWEN3_8B)
    coming = arrivals(jobs, config)
    asks = sorted(asks_s)
    seen: list[tuple[float, Event]] = []
    while coming or worker.due_s is not None:
        arrival_s = coming[0][0] if coming else float("inf")
        ask_s = asks[0] if asks else float("inf")
        due_s = float("inf") if worker.due_s is None else worker.due_s
        if due_s <= min(ask_s, arrival_s):
            seen += told(worker.advance(), due_s)
        elif ask_s <= arrival_s:
            worker.report(asks.pop(0))
        else:
            worker.submit(coming.pop(0)[1], arrival_s)
    return seen


@given(jobs=JOBS, config=CONFIGS, asks_s=st.lists(st.floats(0, 3), max_size=5))
@settings(max_examples=150, deadline=None)
def test_lazy_decoding_changes_neither_what_comes_out_nor_when(
    jobs: list[Job], config: EngineConfig, asks_s: list[float]
) -> None:
    expected, found = one_by_one(jobs, config), lazily(jobs, config, asks_s)

    assert [event for _, event in found] == [event for _, event in expected]
    assert [at_s for at_s, _ in found] == pytest.approx([at_s for at_s, _ in expected], rel=1e-9)


def test_the_report_counts_what_runs_and_waits() -> None:
    config = EngineConfig(kv_capacity_tokens=1000, page_size=1, max_running_requests=1)
    worker = ReplayWorker(WorkerId("w"), config, H200_QWEN3_8B)
    for index in range(2):
        worker.submit(Job(shared=10, own=10, output_tokens=50, gap_s=0.0).request(index, 1), 0.0)
    assert worker.due_s is not None
    worker.advance()  # the first is prefilled

    load = worker.report(0.1)

    assert worker.load == load
    assert (load.at_s, load.running, load.waiting, load.capacity_tokens) == (0.1, 1, 1, 1000)
    assert load.waiting_uncached_tokens == 10
    assert 20 < load.used_tokens < 70


def test_a_request_that_never_fits_is_refused_and_leaves_no_trace() -> None:
    worker = ReplayWorker(WorkerId("w"), EngineConfig(kv_capacity_tokens=100, page_size=1), H200_QWEN3_8B)

    with pytest.raises(ValueError, match="exceed the KV capacity"):
        worker.submit(Job(shared=90, own=10, output_tokens=5, gap_s=0.0).request(0, 1), 0.0)

    assert worker.due_s is None
