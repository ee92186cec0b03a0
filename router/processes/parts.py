"""The parts of one app that are kept the same in all processes. A record; made by line, used by replica."""

from __future__ import annotations

from dataclasses import dataclass

from router.admission.hold import Hold
from router.clock import Clock
from router.fleet.registry import Registry
from router.insight import Insight
from router.policies import Policy
from router.processes.shared_homes import SharedHomes
from router.processes.shared_limits import SharedAddresses, SharedAdmission
from router.processes.totals import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    registry: Registry
    insight: Insight
    admission: SharedAdmission
    homes: SharedHomes
    hold: Hold
    policy: Policy
    policy_name: str
    totals: Totals
    addresses: SharedAddresses | None
    clock: Clock
