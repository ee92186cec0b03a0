"""Who belongs to which arm: sticky, by a salted hash of the session, else the API key, else the request. Pure.

The same salt gives the same arms on every router and after every restart; another salt gives an independent split.
Called by live.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from xxhash import xxh3_64_intdigest

from router.experiment.tally import GROUPS

_FULL = 2.0**64


def unit_of(session: str | None, client: str | None, request_id: str) -> str:
    """What is assigned as a whole, so that one conversation never meets two policies."""
    if session is not None:
        return f"session\0{session}"
    if client is not None:
        return f"client\0{client}"
    return f"request\0{request_id}"


def arm_index(salt: str, unit: str, shares: Sequence[float]) -> int:
    """The index of the unit's arm, where arms have these shares, which add up to 1."""
    point = xxh3_64_intdigest(f"arm\0{salt}\0{unit}") / _FULL
    bounds = list(accumulate(shares))[:-1]
    return bisect_right(bounds, point)


def group_of(salt: str, unit: str) -> int:
    """The statistical group of the unit; independent of its arm."""
    return xxh3_64_intdigest(f"group\0{salt}\0{unit}") % GROUPS
