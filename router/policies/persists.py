"""What a policy may offer to be kept over a restart of the router. Optional; called by state.keeper.

Times are relative to the `now_s` given, because the monotonic clock starts anew with the machine.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

from router.policies.base import Policy
from router.types import WorkerId


@runtime_checkable
class Persists(Protocol):
    def dump(self, now_s: float) -> dict[str, Any]:
        """What it has learned, of msgpack's types."""
        ...

    def load(self, state: dict[str, Any], now_s: float, workers: Collection[WorkerId]) -> None:
        """Take up what `dump` made, for these workers only. Raises ValueError for anything else, and is then empty."""
        ...


def dump_of(policy: Policy, now_s: float) -> dict[str, Any] | None:
    """None for a policy that keeps nothing."""
    return policy.dump(now_s) if isinstance(policy, Persists) else None


def load_into(policy: Policy, state: dict[str, Any], now_s: float, workers: Collection[WorkerId]) -> None:
    """Nothing for a policy that keeps nothing. Raises ValueError."""
    if isinstance(policy, Persists):
        policy.load(state, now_s, workers)
