"""How large a prompt's blocks are: equal at first, then a sixteenth at most of all that comes before them.

    unit     1  2  3 ...  32 | 33 34 | 35 36 | ...  64 | 65 66 67 68 | ...
    block    1  2  3 ...  32 |   33  |   34  | ...  48 |      49     | ...

A match is short of what is really shared by less than a block, so by a sixteenth at most; and a prompt has as many
blocks as the logarithm of its length: 15 for 4 kB, 67 for 40 kB, 120 for 400 kB in units of 256 bytes. All that is done
with a block (hashing, remembering, evicting) costs that much less than with equal blocks. Pure arithmetic; called
wherever depths in blocks become tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

SINGLE: Final = 32
"""So many blocks of one unit come first; then blocks of 2, 4, 8 ... units, half as many of each."""
DOUBLINGS: Final = 40
"""No prompt is longer than 2**44 units: deeper blocks are nowhere."""
RUNS: Final = ((SINGLE, 1), *((SINGLE // 2, 2**more) for more in range(1, DOUBLINGS)))
"""(how many blocks, units of each), shallowest first."""
_UNTIL: Final[tuple[int, ...]] = (0, *accumulate(units for count, units in RUNS for _ in range(count)))
MOST_BLOCKS: Final = len(_UNTIL) - 1


def units_until(depth: int) -> int:
    """Units in the first `depth` blocks."""
    return _UNTIL[depth] if depth <= MOST_BLOCKS else _UNTIL[MOST_BLOCKS]


def depth_within(units: float) -> int:
    """How many blocks lie whole within the first `units`."""
    return bisect_right(_UNTIL, units) - 1


def blocks_of(units: Sequence[int]) -> list[int]:
    """The blocks' hashes of a prompt whose units are named one by one: a block has the name of its last unit. Names
    must stand for all that comes before them too, as chained hashes do."""
    return [units[end - 1] for end in _UNTIL[1 : depth_within(len(units)) + 1]]
