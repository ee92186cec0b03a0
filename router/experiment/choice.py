"""A decision and who made it. Made by experiment.steering and its arms, read by request.dispatch and explain."""

from __future__ import annotations

import msgspec

from router.policies.base import Policy
from router.types import ArmName, Decision, Workers


class Choice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision, who made it, and among which workers. `spilled`: none of the arm's own could take the request."""

    decision: Decision
    policy: Policy
    policy_name: str
    workers: Workers
    arm: ArmName | None = None
    spilled: bool = False
