"""Chained hashes against what their contract says, block by block."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from router.prefix.block_hash import chain
from router.prefix.block_sizes import depth_within, units_until

texts = st.binary(max_size=60).flatmap(lambda piece: st.integers(0, 60).map(lambda times: piece * times))


@given(texts, st.integers(1, 40), st.integers(0, 2**64 - 1))
def test_every_block_is_hashed_after_those_before_it(data: bytes, unit_bytes: int, seed: int) -> None:
    expected, hashed = [], seed
    for depth in range(1, depth_within(len(data) // unit_bytes) + 1):
        hashed = xxh3_64_intdigest(data[units_until(depth - 1) * unit_bytes : units_until(depth) * unit_bytes], hashed)
        expected.append(hashed)

    assert chain(data, unit_bytes, seed) == expected


@given(texts, texts, texts)
def test_two_prompts_share_the_blocks_that_are_equal_as_a_whole(one: bytes, two: bytes, start: bytes) -> None:
    a, b = chain(start + one, 4, 1), chain(start + two, 4, 1)
    same = next((i for i, (x, y) in enumerate(zip(start + one, start + two, strict=False)) if x != y), None)
    shared = min(len(start + one), len(start + two)) if same is None else same

    depth = min(depth_within(shared // 4), len(a), len(b))

    assert a[:depth] == b[:depth]
    assert not set(a[depth:]) & set(b[depth:])
