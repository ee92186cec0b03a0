"""How large a prompt's blocks are: one unit each at first, and with their depth up to eight.

    unit     1  2  3 ...  32 | 33 34 | 35 36 | ...  64 | 65 66 67 68 | ... 128 | 129 ... 136 | ...
    block    1  2  3 ...  32 |   33  |   34  | ...  48 |      49     | ...  64 |      65     | ...

A match is short of what is really shared by less than a block: by a sixteenth at most, and never by more than eight
units, 512 tokens with the default unit, which is how finely traces from production name their prompts. All that is
done with a block (hashing, remembering, evicting) is done 67 times for 40 kB instead of 156, and 243 times for 400 kB
instead of 1,562. Pure arithmetic; called wherever depths in blocks become tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

RUNS: Final = ((32, 1), (16, 2), (16, 4))
"""(how many blocks, units of each), shallowest first; then LARGEST units each."""
LARGEST: Final = 8


def units_until(depth: int) -> int:
    """Units in the first `depth` blocks."""
    if depth <= 32:
        return depth
    if depth <= 48:
        return 2 * depth - 32
    if depth <= 64:
        return 4 * depth - 128
    return 8 * depth - 384


def units_of(depth: int) -> int:
    """Units in the block that ends at `depth`, the first one at 1."""
    return units_until(depth) - units_until(depth - 1)


def depth_within(units: int) -> int:
    """How many blocks lie whole within the first `units`."""
    if units <= 32:
        return units
    if units <= 64:
        return 16 + units // 2
    if units <= 128:
        return 32 + units // 4
    return 48 + units // 8


def blocks_of(units: Sequence[int]) -> list[int]:
    """The blocks' hashes of a prompt whose units are named one by one: a block has the name of its last unit. Names
    must stand for all that comes before them too, as chained hashes do."""
    return [units[units_until(depth) - 1] for depth in range(1, depth_within(len(units)) + 1)]
