"""One process's share in what all know: tells the others what happens here, and applies here what happens there.

Policies hear of every request of every process, in each of them, through the same events as in a single one; so does a
running experiment. A few milliseconds pass until the others know. What is only counted or shown stays where it was,
and whoever leads asks for it. Built by app, runs in the app's event loop. Not here: the line itself (bus), who leads
(parent), the events (teller, elsewhere). Long, because everything that processes tell or ask each other meets here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from router.errors import ProcessGone, WorkerTimeout
from router.policies.persists import dump_of, load_into
from router.processes import experiment_wire, wire
from router.processes.bus import Bus
from router.processes.elsewhere import Elsewhere
from router.processes.fleet_rows import Follower, Row, row_of
from router.processes.parts import Parts
from router.processes.teller import Teller
from router.records import FleetEvent, Outcome
from router.spawn import Spawn
from router.types import RequestId, WorkerChanged, WorkerId, WorkerJoined, WorkerLeft

log = logging.getLogger(__name__)

TICK_S = 0.005
"""What happened within so long goes to the others together: most of a decision's staleness. All processes tell at the
same moments, so that each hears of all others at once."""
BEAT_S = 0.1
WHOLE_BEATS = 10
"""Every so many beats what is counted is told whole, so that whatever was lost is put right within a second."""
BODIES = 1000
"""Bodies of requests that may wait for their outcomes, where there is a decision log with text."""
SNAPSHOT_S = 60.0
SETTLE_S = 1.0
FIGURES_S = 0.5
RECENT = 400
"""So many of its latest requests a process lends to be shown: the dashboard looks at no more."""
RECENT_S = 1.0
"""The dashboard shows no newer ones."""


class Replica:
    """`on_lead` is called once, when this process has become the leader; `reload` when the leader has reloaded."""

    def __init__(self, bus: Bus, parts: Parts) -> None:
        self.bus = bus
        self.on_lead: Callable[[bool], None] = lambda fresh: None
        self.reload: Callable[[], object] = lambda: None
        self._parts = parts
        self._registry = parts.registry
        self._follower = Follower(parts.registry)
        self._elsewhere = Elsewhere(parts.registry, parts.clock, self._end_wait)
        self._teller = Teller(parts.registry, self._elsewhere, self._touch, self._soon)
        self._bodies: dict[str, bytes] = {}
        self._sent_rows: dict[str, Row] = {}
        self._sent_limits: Any = None
        self._rows_due = False
        self._whole = True
        self._figures_due = False
        self._resync = False
        self._timer: asyncio.TimerHandle | None = None
        self._borrowed_s = float("-inf")
        self._beats = 0
        self._held: dict[int, dict[str, Any]] = {}
        self._leading = False
        self._synced = False
        self._known: list[tuple[int, bytes]] | None = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listen()

    def _listen(self) -> None:
        parts, bus = self._parts, self.bus
        self._teller.listen()
        parts.registry.listen(self._worker_changed, WorkerJoined, WorkerLeft, WorkerChanged)
        self._want_outcomes()
        parts.admission.touched = self._touch
        parts.homes.told = lambda name, server: bus.command("home", (name, server))
        parts.insight.desk.changed = self._experiment_changed
        parts.insight.steering.set_shadows(())
        bus.heard, bus.changed, bus.missed = self._heard, self._peers_changed, self._missed
        bus.answers |= {
            "snapshot": self._snapshot, "settle": self._settled, "call_off": self._call_off, "home": self._home,
            "experiment": self._experiment_told, "reload": self._reload_told, "resync": self._resync_asked,
            "body": self._body_told, "figures": self._figures_asked, "recent": self._recent_asked,
        }  # fmt: skip

    @property
    def leads(self) -> bool:
        return self._leading

    def render(self) -> bytes:
        """The body of `/metrics`, for all processes."""
        return self._parts.totals.render()

    def held(self) -> dict[str, Any]:
        """What GET /queue says of requests that are held, in all processes."""
        views = [self._parts.hold.view(), *self._held.values()]
        places = [Counter(view["would_go_to"]) for view in views]
        return {
            "held": sum(view["held"] for view in views),
            "oldest_s": max(view["oldest_s"] for view in views),
            "would_go_to": dict(sum(places, Counter())),
        }

    # -- life -----------------------------------------------------------------------------------------------------

    async def begin(self, spawn: Spawn) -> None:
        """Take up what the leader knows, or lead. Returns when this process may serve."""
        self._loop = asyncio.get_running_loop()
        self.bus.spawn = spawn
        while not self._leading and not self._synced:
            if self.bus.leads:
                self._lead()
                break
            try:
                self._known = []
                found = await self.bus.ask(self.bus.leader, "snapshot", timeout_s=SNAPSHOT_S)
            except ProcessGone:
                await asyncio.sleep(TICK_S)  # the parent is about to name another leader
            else:
                if found is not None:
                    self._take_snapshot(found)
                    self._synced = True
        waiting, self._known = self._known or [], None
        for source, payload in waiting:
            self._heard(source, payload)
        self._peers_changed()  # who has ended meanwhile, who leads now
        spawn(self._beat())
        self.bus.ready()

    async def _beat(self) -> None:
        try:
            while True:
                await asyncio.sleep(BEAT_S)
                self._beats += 1
                self._rows_due = True
                if self._beats % WHOLE_BEATS == 0:
                    self._whole = self._figures_due = True
                self.flush()
        finally:
            self.bus.close()

    def _lead(self) -> None:
        self._leading = self._rows_due = self._whole = True
        insight = self._parts.insight
        insight.steering.set_shadows(insight.shadows)
        self._elsewhere.lead(insight.steering.shadow if insight.shadows else None)
        self._want_outcomes()
        log.info("process %d leads: it probes workers and answers control routes", self.bus.number)
        self.on_lead(not self._synced)

    def _peers_changed(self) -> None:
        for source in (self._elsewhere.sources() | self._parts.totals.sources()) - self.bus.alive:
            self._gone(source)
        self._parts.totals.processes = 1 + len(self.bus.peers)
        self._parts.totals.restarts = self.bus.restarts
        if self.bus.leads and not self._leading and self._known is None:
            self._lead()
        self._whole = True

    def _gone(self, source: int) -> None:
        """Another process has ended: so have its requests."""
        parts = self._parts
        self._elsewhere.gone(source)
        self._held.pop(source, None)
        parts.admission.gone(source)
        parts.totals.gone(source)
        if parts.addresses is not None:
            parts.addresses.gone(source)
        log.warning("process %d has ended", source)

    # -- what happens here ----------------------------------------------------------------------------------------

    def _worker_changed(self, event: FleetEvent) -> None:
        """Listener of the registry."""
        self._rows_due = True
        self._touch()

    def ended(self, outcome: Outcome) -> None:
        """Sink of this process's Outcomes."""
        self._teller.ended(outcome)

    def _want_outcomes(self) -> None:
        """Outcomes are told whole while somebody elsewhere reads them."""
        insight = self._parts.insight
        logged = insight.decision_log is not None and not self._leading
        wanted = logged or insight.desk.running is not None
        if not wanted:
            self._teller.whole = None
        elif self._teller.whole is None:
            self._teller.whole = []

    def logged(self, outcome: Outcome, body: bytes) -> None:
        """Sink of this process's Outcomes with their bodies, where there is a decision log: the leader writes it."""
        decision_log = self._parts.insight.decision_log
        if decision_log is None:
            return
        if self._leading:
            decision_log.write(outcome, body)
        elif decision_log.wants_bodies:
            self.bus.command("body", (outcome.request_id, body), self.bus.leader)

    def reloaded(self) -> None:
        """The leader has reloaded its configuration."""
        if self._leading:
            self.bus.command("reload")

    def _touch(self) -> None:
        """Something is to be told within a tick."""
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_at((self._loop.time() // TICK_S + 1) * TICK_S, self.flush)

    def _soon(self) -> None:
        """Something is to be told at once."""
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None:
            self._timer = self._loop.call_later(0, self.flush)

    def flush(self) -> None:
        """Tell the others all that has happened since the last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._known is not None:
            return
        parts, whole = self._parts, self._whole
        rows, members = self._rows(whole=whole) if self._leading and self._rows_due else (None, None)
        limits = parts.admission.told()
        events, names = self._teller.take()
        batch = wire.Batch(
            events=events,
            names=names,
            flight=self._teller.flight(whole=whole),
            limits=limits if whole or limits[3] or limits[:3] != self._sent_limits else None,
            addresses=parts.addresses.own() if parts.addresses is not None and whole else None,
            open=self._teller.open() if self._resync else None,
            rows=rows,
            members=members,
            figures=self._figures() if self._figures_due else None,
            outcomes=self._outcomes(),
        )
        if batch.says_nothing():
            return
        if self.bus.tell(wire.encode(batch)):
            self._whole = self._resync = self._rows_due = self._figures_due = False
            self._sent_limits = limits[:3]
        else:
            self._whole = self._resync = True

    def _figures(self) -> Row:
        """What is counted here alone."""
        parts = self._parts
        return parts.totals.own(), parts.admission.own_view(), parts.hold.view()

    def _outcomes(self) -> bytes | None:
        """Outcomes of this process, whole, for those who want them."""
        whole = self._teller.whole
        if not whole:
            return None
        self._teller.whole = []
        return wire.encode([wire.Ended.of(outcome) for outcome in whole])

    def _rows(self, *, whole: bool) -> tuple[list[Row], list[WorkerId]]:
        workers = self._registry.all()
        rows: dict[str, Row] = {worker.id: row_of(worker) for worker in workers}
        changed = [row for name, row in rows.items() if whole or self._sent_rows.get(name) != row]
        self._sent_rows = rows
        return changed, [worker.id for worker in workers]

    def _heard(self, source: int, payload: bytes) -> None:
        """A batch of another process."""
        if self._known is not None:
            self._known.append((source, payload))  # after the snapshot
            return
        parts, there = self._parts, self._elsewhere
        batch = wire.decode(payload)
        if batch.rows is not None and batch.members is not None:
            for row in batch.rows:
                self._follower.take(row)
            self._follower.members(batch.members)
        there.take_events(source, batch.events, batch.names)
        if batch.flight:
            there.take_flight(source, batch.flight)
        if batch.limits is not None:
            parts.admission.heard(source, *batch.limits)
            parts.admission.share()
        if batch.addresses is not None and parts.addresses is not None:
            parts.addresses.heard(source, batch.addresses)
        if batch.open is not None:
            there.take_open(source, batch.open)
        if batch.figures is not None:
            self._take_figures(source, *batch.figures)
        if batch.outcomes is not None:
            self._take_outcomes(batch.outcomes)

    def _take_figures(self, source: int, totals: Any, queue: Any, held: Any) -> None:
        self._parts.totals.heard(source, totals)
        self._parts.admission.seen(source, queue)
        self._held[source] = held

    def _take_outcomes(self, packed: bytes) -> None:
        """Of another process. The experiment is tallied by all; the leader writes the decision log."""
        insight = self._parts.insight
        decision_log = insight.decision_log if self._leading else None
        if decision_log is None and insight.desk.running is None:
            return
        for told in wire.outcomes(packed):
            outcome = told.whole()
            insight.desk.record(outcome)
            if decision_log is not None:
                decision_log.write(outcome, self._bodies.pop(outcome.request_id, b""))

    # -- commands and questions -----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Returns when all others have applied what was told so far; after a second in any case."""
        self._rows_due = True
        self.flush()
        asked = [self.bus.ask(peer, "settle", timeout_s=SETTLE_S) for peer in self.bus.peers]
        await asyncio.gather(*asked, return_exceptions=True)

    async def refresh(self) -> None:
        """Have the figures of all processes as they are now; of one that does not answer the last ones stand.

        Each tells all others, and so does this one: what was shown is known to whoever leads next.
        """
        asked = [self.bus.ask(peer, "figures", timeout_s=FIGURES_S) for peer in self.bus.peers]
        await self._figures_asked(self.bus.number, None)
        found = await asyncio.gather(*asked, return_exceptions=True)
        self._parts.totals.processes = 1 + sum(not isinstance(each, BaseException) for each in found)

    async def _figures_asked(self, source: int, body: Any) -> None:
        self._figures_due = True
        self.flush()  # which comes before the answer

    async def borrow(self, name: str | None = None) -> None:
        """Have what the others keep of the request of that name; without one their latest, a second old at most."""
        now_s = self._parts.clock()
        if name is None:
            if now_s - self._borrowed_s < RECENT_S:
                return
            self._borrowed_s = now_s
        elif self._parts.insight.recent.own(name) is not None:
            return
        peers = self.bus.peers
        asked = [self.bus.ask(peer, "recent", name, timeout_s=FIGURES_S) for peer in peers]
        found = await asyncio.gather(*asked, return_exceptions=True)
        lent = [kept.entry() for each in found if not isinstance(each, BaseException) for kept in wire.kept(each)]
        self._parts.insight.recent.borrow(lent, RECENT * (len(peers) + 1))

    async def _recent_asked(self, source: int, name: str | None) -> list[wire.Kept]:
        recent = self._parts.insight.recent
        found = None if name is None else recent.own(name)
        entries = [found] if found is not None else recent.latest_own(1 if name else RECENT)
        return [wire.Kept.of(entry) for entry in entries]

    async def _settled(self, source: int, body: Any) -> None:
        """All that came before has been applied."""

    async def _call_off(self, source: int, body: Any) -> None:
        entry = self._teller.find(RequestId(body[0]))
        if entry is None or entry.wait is None or entry.worker is None:
            return
        if entry.wait in entry.worker.unanswered:
            entry.wait(WorkerTimeout(body[1]))

    def _end_wait(self, source: int, request_id: str, why: str) -> None:
        self.bus.command("call_off", (request_id, why), source)

    async def _home(self, source: int, body: Any) -> None:
        self._parts.homes.heard(body[0], body[1])

    def _experiment_changed(self) -> None:
        """One has begun or ended here."""
        self._want_outcomes()
        if self._leading:
            self.bus.command("experiment", experiment_wire.told(self._parts.insight.desk))

    async def _experiment_told(self, source: int, body: Any) -> None:
        experiment_wire.follow(self._parts.insight.desk, body)
        self._want_outcomes()

    async def _reload_told(self, source: int, body: Any) -> None:
        self.reload()

    async def _body_told(self, source: int, body: Any) -> None:
        self._bodies[body[0]] = body[1]
        while len(self._bodies) > BODIES:
            del self._bodies[next(iter(self._bodies))]

    def _missed(self) -> None:
        """This process was too slow, and some of what was told is lost."""
        self._parts.totals.gaps += 1
        log.warning("process %d fell behind: what others told was dropped; asking them again", self.bus.number)
        self.bus.command("resync")

    async def _resync_asked(self, source: int, body: Any) -> None:
        self._whole = self._resync = True
        self._touch()

    # -- a process that joins -------------------------------------------------------------------------------------

    async def _snapshot(self, source: int, body: Any) -> Any:
        """All that a process needs that joins now; None while this one does not know it itself."""
        if not self._leading:
            await asyncio.sleep(TICK_S)
            return None
        rows, members = self._rows(whole=True)
        parts = self._parts
        return {
            "rows": rows,
            "members": members,
            "policy": parts.policy_name,
            "learned": dump_of(parts.policy, parts.clock()),
            "experiment": experiment_wire.told(parts.insight.desk),
            "totals": parts.totals.dump(),
        }

    def _take_snapshot(self, found: Any) -> None:
        parts = self._parts
        for row in found["rows"]:
            self._follower.take(row)
        self._follower.members(found["members"])
        known = [worker.id for worker in parts.registry.all()]
        if found["policy"] == parts.policy_name and found["learned"] is not None:
            load_into(parts.policy, found["learned"], parts.clock(), known)
        experiment_wire.follow(parts.insight.desk, found["experiment"])
        self._want_outcomes()
        parts.totals.load(found["totals"])
