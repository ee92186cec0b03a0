from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.measures import ErrorKind, Objective, RequestResult, distribution, imbalance, percentile, summarize


def result(**given: object) -> RequestResult:
    values: dict[str, object] = {"session_id": "s", "turn": 0, "start_s": 0.0, "e2e_s": 1.0, **given}
    return RequestResult(**values)  # type: ignore[arg-type]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.floats(0, 100),
)
def test_percentiles_are_numpys(values: list[float], percent: float) -> None:
    assert percentile(sorted(values), percent) == pytest.approx(np.percentile(values, percent), abs=1e-6)


def test_no_values_have_no_distribution_and_no_percentile() -> None:
    assert distribution([]) is None
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_cached_token_ratio_is_a_ratio_of_sums_over_answers_that_report() -> None:
    results = [
        result(prompt_tokens=1000, cached_tokens=900),
        result(prompt_tokens=100, cached_tokens=0),
        result(prompt_tokens=500),
        result(prompt_tokens=400, cached_tokens=400, error=ErrorKind.TRUNCATED),
    ]
    summary = summarize(results)
    assert summary.cached_token_ratio == 900 / 1100
    assert (summary.prompt_tokens, summary.cached_tokens) == (1100, 900)


def test_latencies_are_of_answered_requests_only() -> None:
    results = [result(ttft_s=0.1, e2e_s=2.0), result(ttft_s=9.0, e2e_s=9.0, error=ErrorKind.TIMEOUT)]
    summary = summarize(results)
    assert (summary.requests, summary.errors, summary.error_kinds) == (2, 1, {"timeout": 1})
    assert summary.ttft_s is not None
    assert summary.e2e_s is not None
    assert (summary.ttft_s.count, summary.ttft_s.max, summary.e2e_s.max) == (1, 0.1, 2.0)


def test_itl_pools_the_gaps_of_all_answers_and_tpot_has_one_value_per_answer() -> None:
    results = [
        result(ttft_s=1.0, e2e_s=4.0, completion_tokens=4, gaps_s=(1.0, 1.0, 1.0)),
        result(ttft_s=1.0, e2e_s=1.0, completion_tokens=1),
    ]
    summary = summarize(results)
    assert summary.itl_s is not None
    assert summary.tpot_s is not None
    assert (summary.itl_s.count, summary.tpot_s.count, summary.tpot_s.mean) == (3, 1, 1.0)


def test_imbalance_counts_workers_that_served_nothing() -> None:
    results = [result(worker="a"), result(worker="a"), result(worker="b"), result(worker=None)]
    assert summarize(results).imbalance_requests == pytest.approx(2 / 1.5)
    assert summarize(results, workers=["a", "b", "c", "d"]).imbalance_requests == pytest.approx(2 / 0.75)
    assert imbalance({}) is None
    assert imbalance({"a": 0, "b": 0}) is None


def test_imbalance_of_uncached_tokens_weighs_the_work_not_the_requests() -> None:
    results = [
        result(worker="a", prompt_tokens=100, cached_tokens=0),
        result(worker="b", prompt_tokens=100, cached_tokens=100),
    ]
    summary = summarize(results)
    assert (summary.imbalance_requests, summary.imbalance_uncached) == (1.0, 2.0)


def test_rates_count_from_the_first_send_to_the_last_end() -> None:
    results = [result(start_s=10.0, e2e_s=1.0, completion_tokens=30), result(start_s=12.0, e2e_s=3.0)]
    summary = summarize(results)
    assert (summary.duration_s, summary.request_rate, summary.output_token_rate) == (5.0, 0.4, 6.0)
    assert summarize([]).duration_s == 0.0


@pytest.mark.parametrize(
    ("objective", "good"),
    [
        (Objective(), 3),
        (Objective(ttft_s=0.5), 1),
        (Objective(e2e_s=1.5), 2),
        (Objective(tpot_s=0.2), 2),
    ],
)
def test_goodput_counts_answers_that_meet_every_limit_and_never_failures(objective: Objective, good: int) -> None:
    results = [
        result(ttft_s=0.4, e2e_s=1.0, completion_tokens=2),  # TPOT 0.6
        result(ttft_s=0.9, e2e_s=1.0, completion_tokens=2),  # TPOT 0.1
        result(ttft_s=None, e2e_s=2.0),  # no first token seen: misses a limit on TTFT, has no TPOT
        result(ttft_s=0.1, e2e_s=0.2, error=ErrorKind.HTTP_STATUS),
    ]
    summary = summarize(results, objective=objective)
    assert summary.goodput_ratio == good / 4
    assert summary.goodput_rate == good / 2


def test_scaling_a_distribution_scales_all_but_its_count() -> None:
    one = distribution([1.0, 2.0, 3.0])
    assert one is not None
    assert one.scaled(2) == distribution([2.0, 4.0, 6.0])
