"""KV event messages of all releases are read, and what is none is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fleet.kv_wire import Cleared, Removed, Stored, events_of, tokens_of

STORED = {
    "type": "BlockStored", "block_hashes": [1, -2], "parent_block_hash": None, "token_ids": [5, 6], "block_size": 1,
    "lora_id": None, "medium": "GPU",
}  # fmt: skip


def payload(*events: Any) -> bytes:
    return msgspec.msgpack.encode([123.5, list(events), 0])


def test_maps_are_read_and_unknown_fields_are_skipped() -> None:
    [stored, removed, cleared] = events_of(
        payload(
            {**STORED, "cache_salt": "s", "session_id": "x", "news": [1, {"a": 2}]},
            {"type": "BlockRemoved", "block_hashes": [1]},
            {"type": "AllBlocksCleared"},
        )
    )

    assert isinstance(stored, Stored)
    assert (stored.hashes, stored.parent, stored.page_tokens, stored.salt) == ([1, -2], None, 1, "s")
    assert (stored.other_namespace, tokens_of(stored)) == (False, [5, 6])
    assert (removed, cleared) == (Removed(hashes=[1]), Cleared())


def test_positional_arrays_of_older_releases_are_read() -> None:
    [stored, removed, cleared] = events_of(
        payload(["BlockStored", [1], 7, [5, 6], 2, None], ["BlockRemoved", [1]], ["AllBlocksCleared"])
    )

    assert isinstance(stored, Stored)
    assert (stored.hashes, stored.parent, stored.page_tokens, tokens_of(stored)) == ([1], 7, 2, [5, 6])
    assert (removed, cleared) == (Removed(hashes=[1]), Cleared())


@pytest.mark.parametrize(
    ("more", "other"), [({"lora_id": 3}, True), ({"lora_name": "x"}, True), ({"cache_salt": "x"}, False)]
)
def test_blocks_of_an_adapter_are_told_apart(more: dict[str, Any], other: bool) -> None:
    [stored] = events_of(payload({**STORED, **more}))

    assert isinstance(stored, Stored)
    assert stored.other_namespace is other


def test_blocks_outside_device_memory_are_left_out() -> None:
    host = {"medium": "CPU_PINNED"}

    assert events_of(payload({**STORED, **host}, {"type": "BlockRemoved", "block_hashes": [1], **host})) == []


def test_pairs_of_token_ids_are_no_ids() -> None:
    [stored] = events_of(payload({**STORED, "token_ids": [[1, 2], [2, 3]]}))

    assert isinstance(stored, Stored)
    assert tokens_of(stored) is None


@given(st.binary(max_size=60) | st.just(payload({"type": "Other"})) | st.just(payload(["Other"])))
def test_what_is_no_message_is_a_value_error_or_nothing(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(events_of(data), list)
