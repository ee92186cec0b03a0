"""The front end reads one request after another, and its fixed latency holds nobody up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.simulated.cost_model import H200_QWEN3_8B
from workers.simulated.front_end import FrontEnd

MODEL = replace(
    H200_QWEN3_8B,
    front_end_latency_s=0.5,
    front_end_request_s=0.1,
    front_end_token_s=0.001,
    front_end_text_token_s=0.01,
)


def test_requests_that_come_together_are_ready_one_after_another() -> None:
    front_end = FrontEnd(MODEL)
    ready = [front_end.ready_s(10.0, 100, text=False) for _ in range(3)]
    assert ready == pytest.approx([10.7, 10.9, 11.1])


def test_one_that_comes_later_waits_for_nobody() -> None:
    front_end = FrontEnd(MODEL)
    front_end.ready_s(10.0, 100, text=False)
    assert front_end.ready_s(10.3, 100, text=False) == pytest.approx(11.0)


def test_text_costs_more_than_token_ids() -> None:
    assert FrontEnd(MODEL).ready_s(0.0, 100, text=True) == pytest.approx(0.5 + 0.1 + 100 * 0.011)


def test_a_model_without_a_front_end_is_ready_at_once() -> None:
    none = replace(
        MODEL, front_end_latency_s=0.0, front_end_request_s=0.0, front_end_token_s=0.0, front_end_text_token_s=0.0
    )
    assert FrontEnd(none).ready_s(3.0, 5000, text=True) == 3.0
