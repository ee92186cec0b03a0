"""Options are checked together, and each refusal names the flag."""

from __future__ import annotations

from typing import Any

import pytest

from workers.simulated.errors import BadOption
from workers.simulated.options import Options


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"kv_capacity_tokens": 0}, "--kv-capacity-tokens"),
        ({"page_size": 0}, "--page-size"),
        ({"max_running_requests": 0}, "--max-running-requests"),
        ({"chunked_prefill_tokens": -1}, "--chunked-prefill-tokens"),
        ({"context_length": 0}, "--context-length"),
        ({"dp_size": 0}, "--dp-size"),
        ({"speed": 0.0}, "--speed"),
        ({"speed": float("nan")}, "--speed"),
        ({"port": 70_000}, "--port"),
        ({"model": ""}, "--model"),
        ({"page_size": 64, "kv_capacity_tokens": 32}, "--kv-capacity-tokens"),
    ],
    ids=str,
)
def test_an_impossible_option_is_refused_by_name(given: dict[str, Any], flag: str) -> None:
    with pytest.raises(BadOption, match=flag):
        Options(**given).validated()


def test_defaults_are_possible() -> None:
    assert Options().validated() == Options()


def test_a_request_is_bounded_by_the_context_and_by_the_cache() -> None:
    assert Options(context_length=1000, kv_capacity_tokens=5000).max_request_tokens == 999
    assert Options(context_length=1000, kv_capacity_tokens=500).max_request_tokens == 499
    assert Options(context_length=1000, kv_capacity_tokens=500).max_prompt_tokens == 494
