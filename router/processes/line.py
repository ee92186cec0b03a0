"""What makes an app one of several processes: its number, its socket to the parent, and the parts that are shared.

Made by child, handed to app, which builds everything else. Not here: what the parts do.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from router.admission.admission import AdmissionConfig
from router.admission.hold import Hold
from router.asgi import ASGIApp
from router.clock import Clock
from router.fleet.registry import Registry
from router.insight import Insight
from router.lead import Lead
from router.policies import Policy
from router.processes.bus import Bus
from router.processes.front import Front
from router.processes.parts import Parts
from router.processes.replica import Replica
from router.processes.shared_homes import SharedHomes
from router.processes.shared_limits import SharedAddresses, SharedAdmission
from router.processes.totals import Totals
from router.spawn import Spawn
from router.state.live import Live
from router.state.reload import Reloader
from router.telemetry.metrics import Metrics


class Line:
    """`addresses` is what the server counts its connections in, where they are limited by address."""

    def __init__(self, number: int, sock: socket.socket, addresses: Counter[str] | None = None) -> None:
        self.bus = Bus(number)
        self.homes = SharedHomes()
        self._sock = sock
        self._addresses = addresses
        self._admission: SharedAdmission | None = None
        self._replica: Replica | None = None

    def admission(self, config: AdmissionConfig, clock: Clock) -> SharedAdmission:
        self._admission = SharedAdmission(config, clock, self.bus.number)
        return self._admission

    def replica(
        self,
        registry: Registry,
        insight: Insight,
        hold: Hold,
        policy: Policy,
        policy_name: str,
        metrics: Metrics,
        clock: Clock,
    ) -> Replica:
        assert self._admission is not None
        parts = Parts(
            registry=registry,
            insight=insight,
            admission=self._admission,
            homes=self.homes,
            hold=hold,
            policy=policy,
            policy_name=policy_name,
            totals=Totals(metrics, insight.traffic, self.bus.number),
            addresses=None if self._addresses is None else SharedAddresses(self._addresses),
            clock=clock,
        )
        self._replica = Replica(self.bus, parts)
        return self._replica

    def front(self, control: ASGIApp) -> ASGIApp:
        """The control routes, answered by whoever leads."""
        assert self._replica is not None
        return Front(control, self._replica)

    async def join(
        self, lead: Lead, begin_to_lead: Callable[[], None], live: Live, reloader: Reloader | None, spawn: Spawn
    ) -> None:
        """Returns when this process knows what the others know, and may serve; from then on it leads if it has to."""
        replica = self._replica
        assert replica is not None

        def promoted(fresh: bool) -> None:
            lead.listen()
            if fresh:
                lead.take_up()
            begin_to_lead()

        replica.on_lead = promoted
        live.leads = lambda: replica.leads
        if reloader:
            reloader.replicated(replica.reloaded)
            replica.reload = reloader.reload
        await self.bus.open(self._sock)
        await replica.begin(spawn)
