"""What a policy can say of each worker beside its decision: the match it expects there and the cost, term by term.

Optional: a policy that has nothing to say does not have the method. Called by request.explain and the dashboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol, cast, runtime_checkable

from router.policies.base import Policy
from router.records import Decision, RoutingRequest
from router.types import Candidate, Reason, Workers


@runtime_checkable
class Explains(Protocol):
    """A policy that weighs workers one by one."""

    def candidates(self, request: RoutingRequest, workers: Workers) -> Sequence[Candidate]:
        """Every one of `workers`, in their order, as `select` weighs it now. Reads only."""
        ...


PREDICTS = frozenset({Reason.PREFIX, Reason.PREFIX_BUSY, Reason.NO_PREFIX, Reason.LOWEST_COST})
"""Reasons of policies that predict a match; for the others a match of 0 says nothing."""


def expected_match_tokens(decision: Decision) -> int | None:
    """The prefix match the policy expects, in tokens; None where it expects none in particular."""
    predicts = decision.reason in PREDICTS or decision.expected_ttft_s is not None or decision.match_tokens
    return round(decision.match_tokens) if predicts else None


def candidates_of(policy: Policy, request: RoutingRequest, workers: Workers) -> tuple[Candidate, ...] | None:
    """The policy's own view of every worker, in their order; None when it does not weigh workers one by one."""
    if not _explains(type(policy)):
        return None
    return tuple(cast("Explains", policy).candidates(request, workers))


@cache
def _explains(kind: type) -> bool:
    """Asked once for each class: isinstance with a protocol costs as much as a decision."""
    return issubclass(kind, Explains)
