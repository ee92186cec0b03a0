"""Facts are read leniently out of /server_info: what is missing or odd is unknown, never an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.server_info import KvEventsAt, facts_of

EVENTS = {
    "publisher": "zmq", "endpoint_host": "*", "endpoint_port_base": 5557, "topic": "", "block_size": 16, "dp_size": 2,
}  # fmt: skip
INFO: dict[str, Any] = {
    "launch_command": "python -m sglang.launch_server",
    "random_seed": 17,
    "version": "0.5.21",
    "dp_size": 2,
    "page_size": 16,
    "max_total_num_tokens": 699_103,
    "max_running_requests": 256,
    "enable_cache_report": True,
    "tokenizer_path": "/models/m",
    "kv_events": EVENTS,
}


def test_the_facts_of_a_server_are_read() -> None:
    facts = facts_of(INFO)

    assert (facts.version, facts.dp_size, facts.page_tokens, facts.capacity_tokens) == ("0.5.21", 2, 16, 699_103)
    assert (facts.max_running, facts.cache_report, facts.streams_usage) == (256, True, False)
    assert facts.tokenizer_path == "/models/m"
    assert facts.kv_events == KvEventsAt(host="*", port=5557, topic="", block_tokens=16)
    assert facts_of({**INFO, "kv_events": {**EVENTS, "replay_endpoint_port_base": 6000}}).kv_events == KvEventsAt(
        host="*", port=5557, topic="", block_tokens=16, replay_port=6000
    )


def test_a_restarted_server_has_another_identity_and_the_same_one_has_not() -> None:
    assert facts_of(INFO).identity == facts_of({**INFO, "internal_states": [1]}).identity
    assert facts_of(INFO).identity != facts_of({**INFO, "random_seed": 18}).identity


@pytest.mark.parametrize("odd", [None, {}, {**EVENTS, "publisher": "null"}, {**EVENTS, "block_size": 0}, "x", 3])
def test_no_usable_publisher_is_none(odd: Any) -> None:
    assert facts_of({**INFO, "kv_events": odd}).kv_events is None


@pytest.mark.parametrize(
    ("version", "release"),
    [("0.5.21", (0, 5, 21)), ("0.5.9.post1", (0, 5, 9)), ("0.5.dev3+g1", None), ("main", None), (None, None)],
)
def test_releases_can_be_compared(version: str | None, release: tuple[int, ...] | None) -> None:
    assert facts_of({"version": version}).release == release


odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries(dict.fromkeys(INFO, odd_values)))
def test_odd_values_are_unknown_and_never_an_error(info: dict[str, Any]) -> None:
    facts = facts_of(info)

    assert facts.dp_size >= 1
    assert facts.capacity_tokens is None or facts.capacity_tokens > 0
