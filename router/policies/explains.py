"""What a policy can say of each worker beside its decision: the match it expects there and the cost, term by term.

Optional: a policy that has nothing to say does not have the method. Called by request.explain and the dashboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from router.policies.base import Policy
from router.types import Candidate, RoutingRequest, Workers


@runtime_checkable
class Explains(Protocol):
    """A policy that weighs workers one by one."""

    def candidates(self, request: RoutingRequest, workers: Workers) -> Sequence[Candidate]:
        """Every one of `workers`, in their order, as `select` weighs it now. Reads only."""
        ...


def candidates_of(policy: Policy, request: RoutingRequest, workers: Workers) -> tuple[Candidate, ...] | None:
    """The policy's own view of every worker, in their order; None when it does not weigh workers one by one."""
    return tuple(policy.candidates(request, workers)) if isinstance(policy, Explains) else None
