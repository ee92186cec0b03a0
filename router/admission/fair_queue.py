"""Who goes next when there is more work than room: a bounded queue that is fair between clients. Pure: time comes in.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): a client's next request is due when its last one would be done,
were it served at its share alone; the earliest due goes first. A client that was idle is due now, one that floods
waits behind its own flood. Shares are by weight, so nobody starves. Not here: futures and timers (admission).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Literal

MAX_RETRY_AFTER_S = 60


class Ticket:
    """One request's place. `client` names who is served; `cost` is in any unit that is the same for all."""

    __slots__ = ("client", "cost", "due", "since_s", "state", "weight")

    def __init__(self, client: str, weight: float = 1.0, cost: float = 1.0, since_s: float = 0.0) -> None:
        self.client = client
        self.weight = weight
        self.cost = cost
        self.since_s = since_s
        self.due = 0.0
        self.state: Literal["new", "waiting", "running", "gone"] = "new"


class Share:
    """What one client has in the queue and in service, and until when its share is used up (virtual time)."""

    __slots__ = ("due", "running", "waiting", "weight")

    def __init__(self) -> None:
        self.due = 0.0
        self.waiting = 0
        self.running = 0
        self.weight = 1.0


class FairQueue:
    """`room` is how many may be served at once, `max_waiting` how many may wait. Clients that have nothing here are
    forgotten, so that invented ones fill no memory."""

    def __init__(self, room: int, max_waiting: int) -> None:
        self.room = room
        self.max_waiting = max_waiting
        self.running = 0
        self.waiting = 0
        self._heap: list[tuple[float, int, Ticket]] = []
        self._shares: dict[str, Share] = {}
        self._virtual = 0.0
        self._number = 0
        self._left_s: float | None = None
        self._gap_s = 0.1

    def shares(self) -> Iterator[tuple[str, Share]]:
        """Every client that has something here."""
        return iter(self._shares.items())

    def held(self, client: str) -> int:
        """Requests of this client, waiting and running."""
        share = self._shares.get(client)
        return 0 if share is None else share.waiting + share.running

    def arrive(self, ticket: Ticket) -> Ticket | None:
        """Let it run or wait, as its `state` then says; returns the one that had to go for it, maybe itself."""
        share = self._shares.get(ticket.client)
        if share is None:
            share = self._shares[ticket.client] = Share()
        share.weight = weight = ticket.weight
        due = share.due
        if due < self._virtual:
            due = self._virtual
        ticket.due = due = due + ticket.cost / weight
        if self.waiting == 0 and self.running < self.room:
            share.due = due
            share.running += 1
            self.running += 1
            ticket.state = "running"
            return None
        gone: Ticket | None = None
        if self.waiting >= self.max_waiting:
            gone = self._victim(ticket)
            if gone is None:
                ticket.state = "gone"
                self._forget(ticket.client, share)
                return ticket
            self.leave(gone)
        share.due = ticket.due
        ticket.state = "waiting"
        share.waiting += 1
        self.waiting += 1
        self._number += 1
        heapq.heappush(self._heap, (ticket.due, self._number, ticket))
        return gone

    def leave(self, ticket: Ticket, now_s: float | None = None) -> None:
        """It has been served, or waits no more. `now_s` when served: so the time others wait is estimated."""
        share = self._shares.get(ticket.client)
        if share is None:
            return
        if ticket.state == "running":
            share.running -= 1
            self.running -= 1
            if now_s is not None:
                self._measure(now_s)
        elif ticket.state == "waiting":
            share.waiting -= 1
            self.waiting -= 1
        else:
            return
        ticket.state = "gone"
        if not share.running:
            self._forget(ticket.client, share)
        if self._heap and len(self._heap) > 64 and len(self._heap) > 2 * self.waiting:
            self._heap = [entry for entry in self._heap if entry[2].state == "waiting"]
            heapq.heapify(self._heap)

    def next(self) -> Ticket | None:
        """The next that may run now; call it until None whenever something left or room grew."""
        while self._heap and self.running < self.room:
            ticket = heapq.heappop(self._heap)[2]
            if ticket.state != "waiting":
                continue
            share = self._shares[ticket.client]
            share.waiting -= 1
            self.waiting -= 1
            self._virtual = max(self._virtual, ticket.due - ticket.cost / ticket.weight)
            self._run(ticket, share)
            return ticket
        return None

    def retry_after_s(self) -> int:
        """When there may be room again, by the pace of late: whole seconds, 1 to 60."""
        return int(min(max(self.waiting * self._gap_s, 1.0), MAX_RETRY_AFTER_S))

    def _run(self, ticket: Ticket, share: Share) -> None:
        ticket.state = "running"
        share.running += 1
        self.running += 1

    def _victim(self, newcomer: Ticket) -> Ticket | None:
        """The last request of whoever waits with most for its weight, unless that is the newcomer's client itself."""
        most = max(self._shares.items(), key=lambda item: item[1].waiting / item[1].weight)
        name, share = most
        own = self._shares[newcomer.client]
        if name == newcomer.client or share.waiting / share.weight <= (own.waiting + 1) / own.weight:
            return None
        waiting = (entry for entry in self._heap if entry[2].client == name and entry[2].state == "waiting")
        return max(waiting, key=lambda entry: entry[:2])[2]

    def _measure(self, now_s: float) -> None:
        if self._left_s is not None:
            self._gap_s += 0.05 * (min(now_s - self._left_s, 10.0) - self._gap_s)
        self._left_s = now_s

    def _forget(self, client: str, share: Share) -> None:
        """A client's debt is kept while others wait, or leaving and coming back would pay."""
        if share.waiting == 0 and share.running == 0 and (self.waiting == 0 or share.due <= self._virtual):
            del self._shares[client]
        if self.waiting == 0 and len(self._shares) > 2 * self.running + 16:
            self._shares = {name: kept for name, kept in self._shares.items() if kept.waiting or kept.running}
