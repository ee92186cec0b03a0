"""KV event messages as SGLang publishes them: msgpack to records. Pure. Called by fleet.kv_events.

A payload is an array [timestamp, events, rank]. Events are maps with a `type`; older releases sent positional arrays
that start with it. Both are read. Fields that nobody here needs are skipped unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

DEVICE = (None, "GPU")
"""Media that a request finds its prefix in at no cost; blocks in host memory or on disk are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Blocks that were stored, a chain; `token_ids` is kept encoded, for `tokens_of`."""

    hashes: list[int]
    parent: int | None
    page_tokens: int
    salt: str | None
    other_namespace: bool
    token_ids: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    hashes: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    pass


KvEvent: TypeAlias = Stored | Removed | Cleared


class _BlockStored(msgspec.Struct, tag_field="type", tag="BlockStored"):
    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: msgspec.Raw
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    cache_salt: str | None = None
    lora_name: str | None = None


class _BlockRemoved(msgspec.Struct, tag_field="type", tag="BlockRemoved"):
    block_hashes: list[int]
    medium: str | None = None


class _AllBlocksCleared(msgspec.Struct, tag_field="type", tag="AllBlocksCleared"):
    pass


class _OldStored(msgspec.Struct, array_like=True, tag="BlockStored"):
    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: msgspec.Raw
    block_size: int
    lora_id: int | None = None
    medium: str | None = None


class _OldRemoved(msgspec.Struct, array_like=True, tag="BlockRemoved"):
    block_hashes: list[int]
    medium: str | None = None


class _OldCleared(msgspec.Struct, array_like=True, tag="AllBlocksCleared"):
    pass


class _Batch(msgspec.Struct, array_like=True):
    ts: float
    events: list[_BlockStored | _BlockRemoved | _AllBlocksCleared]


class _OldBatch(msgspec.Struct, array_like=True):
    ts: float
    events: list[_OldStored | _OldRemoved | _OldCleared]


_decode = msgspec.msgpack.Decoder(_Batch).decode
_decode_old = msgspec.msgpack.Decoder(_OldBatch).decode
_decode_ids = msgspec.msgpack.Decoder(list[int]).decode


def events_of(payload: bytes) -> list[KvEvent]:
    """The events of one message that concern device memory, in order. Raises ValueError for what is none."""
    try:
        found = _decode(payload).events
    except msgspec.ValidationError:
        return [event for each in _old_events(payload) for event in _one(each)]
    except msgspec.DecodeError as error:
        raise ValueError(f"not a KV event message: {error}") from error
    return [event for each in found for event in _one(each)]


def _old_events(payload: bytes) -> list[_OldStored | _OldRemoved | _OldCleared]:
    try:
        return _decode_old(payload).events
    except msgspec.DecodeError as error:
        raise ValueError(f"not a KV event message: {error}") from error


def _one(
    event: _BlockStored | _BlockRemoved | _AllBlocksCleared | _OldStored | _OldRemoved | _OldCleared,
) -> tuple[KvEvent, ...]:
    match event:
        case _BlockStored() | _OldStored():
            if event.medium not in DEVICE or event.block_size < 1:
                return ()
            salt, lora = (event.cache_salt, event.lora_name) if isinstance(event, _BlockStored) else (None, None)
            return (
                Stored(
                    hashes=event.block_hashes,
                    parent=event.parent_block_hash,
                    page_tokens=event.block_size,
                    salt=salt,
                    other_namespace=event.lora_id is not None or lora is not None,
                    token_ids=event.token_ids,
                ),
            )
        case _BlockRemoved() | _OldRemoved():
            return (Removed(hashes=event.block_hashes),) if event.medium in DEVICE else ()
        case _:
            return (Cleared(),)


def tokens_of(stored: Stored) -> list[int] | None:
    """The token ids of stored blocks; None where they are not plain ids (speculative decoding stores pairs)."""
    try:
        return _decode_ids(stored.token_ids)
    except msgspec.DecodeError:
        return None
