"""Engine settings that cannot work are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.simulated.engine_config import EngineConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_capacity_tokens", 0),
        ("page_size", 0),
        ("max_running_requests", 0),
        ("chunked_prefill_tokens", -1),
        ("max_prefill_tokens", 0),
        ("schedule_policy", "shortest"),
        ("new_token_ratio", 1.5),
        ("new_token_ratio_min", 0.9),
        ("new_token_ratio_decay_steps", 0),
        ("clip_new_tokens", 0),
        ("retract_decode_steps", -1),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(EngineConfig(), **{field: value})


@pytest.mark.parametrize("field", ["kv_capacity_tokens", "chunked_prefill_tokens"])
def test_a_budget_below_one_page_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must hold one page of 512"):
        replace(EngineConfig(page_size=512), **{field: 511})
