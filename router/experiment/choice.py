"""A decision and who made it. Made by experiment.steering and its arms, read by request.dispatch and explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from router.compiled import mypyc_attr
from router.policies.base import Policy
from router.records import Decision
from router.types import ArmName, Workers


@mypyc_attr(acyclic=True)
@dataclass(init=False, slots=True, kw_only=True)
class Choice:
    """A decision, who made it, and among which workers. `spilled`: none of the arm's own could take the request."""

    decision: Final[Decision]
    policy: Final[Policy]
    policy_name: Final[str]
    workers: Final[Workers]
    arm: Final[ArmName | None]
    spilled: Final[bool]

    def __init__(
        self,
        *,
        decision: Decision,
        policy: Policy,
        policy_name: str,
        workers: Workers,
        arm: ArmName | None = None,
        spilled: bool = False,
    ) -> None:
        self.decision = decision
        self.policy = policy
        self.policy_name = policy_name
        self.workers = workers
        self.arm = arm
        self.spilled = spilled
