"""How much a policy remembers of each worker: blocks in its prefix index, for the gauge of the same name.

Optional: a policy without an index does not have the method. Called by app for telemetry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from router.policies.base import Policy
from router.types import WorkerId


@runtime_checkable
class Remembers(Protocol):
    """A policy with a prefix index per worker."""

    def index_blocks(self) -> Mapping[WorkerId, int]:
        """Blocks stored per worker, for those that something is stored of. Reads only."""
        ...


def index_blocks_of(policy: Policy) -> Mapping[WorkerId, int]:
    """Blocks that the policy remembers per worker; empty when it keeps no index."""
    return policy.index_blocks() if isinstance(policy, Remembers) else {}
