"""Chained hashes of a prompt's blocks. Pure. Called by request.prompt_key.

Block i's hash is xxh3_64 of its bytes, seeded with block i-1's hash; block 0 is seeded with the namespace. So one
64-bit number stands for the namespace and everything up to the end of its block, and two prompts share their first n
hashes exactly when they share namespace and the first n blocks (up to a collision, 2**-64 a pair). How large blocks
are: block_sizes.
xxh3 was the fastest hash measured that takes a seed: 9 us for 40 kB in blocks of 512 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from xxhash import xxh3_64_intdigest

from router.prefix.block_sizes import units_until

Block: TypeAlias = Any
"""A block's hash: an `int`, but compiled code would then convert 64 bits to a number and back at each look-up."""


def namespace_seed(namespace: bytes) -> int:
    """The seed that a namespace (model, LoRA, cache salt, extra key) gives to its first block."""
    return xxh3_64_intdigest(namespace)


def chain(data: bytes, unit_bytes: int, seed: Block) -> list[Block]:
    """Hashes of the full blocks of `data`, first block first. A partial last block has none."""
    digest: Callable[[bytes, Block], Block] = xxh3_64_intdigest  # nearer than a name of the module, for each block
    hashes: list[Block] = []
    start, end = 0, unit_bytes
    while end <= len(data):
        seed = digest(data[start:end], seed)
        hashes.append(seed)
        start, end = end, units_until(len(hashes) + 1) * unit_bytes
    return hashes
