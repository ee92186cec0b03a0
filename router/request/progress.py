"""One model call as it came in, and what is known of it so far. Made by endpoints and dispatch; read by record.

Not here: what is kept of it once it has ended (records.Outcome).
"""

from __future__ import annotations

from router.errors import RouterError
from router.fleet.call_off import CallOff
from router.records import Decision, RoutingRequest
from router.request.exact import ExactMatch
from router.request.parsed_request import ParsedRequest
from router.request.raw_request import RawRequest
from router.request.relayed import Relayed
from router.request.reply import Reply
from router.types import ArmName, WorkerId, Workers


class Progress:
    """One request on its way, from its dispatch to its record. Written by dispatch only."""

    policy_name: str | None = None
    arm: ArmName | None = None
    spilled = False
    exact: ExactMatch | None = None
    decision: Decision | None = None
    decision_s = 0.0
    held_s = 0.0
    dispatched_s: float | None = None
    result: Relayed | None = None
    error: RouterError | None = None
    request: RoutingRequest | None = None
    home: str | None = None
    """The server that has what this request continues."""
    parsed: ParsedRequest
    workers: Workers = ()
    """Among which it was decided."""

    def __init__(self, raw: RawRequest, reply: Reply, call_off: CallOff) -> None:
        self.raw = raw
        self.reply = reply
        self.call_off = call_off
        self.tried: list[WorkerId] = []
        """One entry per attempt."""
