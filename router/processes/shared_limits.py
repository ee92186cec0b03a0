"""Limits that hold for all processes together: room, a client's rate and concurrency, connections of an address.

Every process knows what the others have running and waiting, some milliseconds late, and lets in its part of what is
free, so that together they keep to the limit. Pure but for Admission's futures. Called by replica.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from router.admission.admission import Admission, AdmissionConfig
from router.clock import Clock
from router.security.client import Client

Shares = Mapping[int, tuple[int, int]]
"""(running, waiting) by the number of the process."""


def allotment(total: int, number: int, shares: Shares) -> int:
    """How many requests process `number` may have running, so that all together have at most `total`.

    What is free goes first to those with requests that wait, the rest in equal parts to all.
    """
    running, waiting = shares[number]
    free = total - sum(each for each, _ in shares.values())
    if free <= 0:
        return running
    wanted = sum(each for _, each in shares.values())
    if wanted >= free:
        hungry = [name for name, (_, each) in shares.items() if each]
        return running + (_part(free, number, hungry) if waiting else 0)
    return running + waiting + _part(free - wanted, number, list(shares))


def _part(whole: int, number: int, among: list[int]) -> int:
    """Equal parts; what is left over goes to the lowest numbers."""
    each, over = divmod(whole, len(among))
    return each + (sorted(among).index(number) < over)


class SharedAdmission(Admission):
    """Admission of one of several processes. `touched` is called when the others should hear of it soon."""

    def __init__(self, config: AdmissionConfig, clock: Clock, number: int) -> None:
        self._number = number
        self._others: dict[int, tuple[int, int]] = {}
        self._held_elsewhere: dict[int, dict[str, int]] = {}
        self._views: dict[int, dict[str, Any]] = {}
        self._limited: set[str] = set()
        self._taken: dict[str, tuple[int, float]] = {}
        self.touched: Callable[[], None] = lambda: None
        super().__init__(config, clock)
        self.share()

    @property
    def room(self) -> int:
        return self.total_room

    # -- what the others hear -------------------------------------------------------------------------------------

    def told(self) -> tuple[int, int, dict[str, int], dict[str, tuple[int, float]]]:
        """(running, waiting, held by limited clients, (taken, rate) since the last call by limited clients)."""
        taken, self._taken = self._taken, {}
        held = {name: self._queue.held(name) for name in self._limited}
        self._limited = {name for name, count in held.items() if count}
        self.share()
        return self._queue.running, self._queue.waiting, held, taken

    # -- what is heard of them ------------------------------------------------------------------------------------

    def heard(
        self, source: int, running: int, waiting: int, held: dict[str, int], taken: dict[str, tuple[int, float]]
    ) -> None:
        """What another process told."""
        self._others[source] = (running, waiting)
        self._held_elsewhere[source] = held
        now_s = self._clock()
        for name, (count, rate_per_s) in taken.items():
            self._bucket(name, rate_per_s, now_s).spend(count, now_s)

    def seen(self, source: int, view: dict[str, Any]) -> None:
        """Another process's part of `view`."""
        self._views[source] = view

    def gone(self, source: int) -> None:
        """It has ended, and with it what ran there."""
        for kept in (self._others, self._held_elsewhere, self._views):
            kept.pop(source, None)
        self.share()

    def share(self) -> None:
        """Work out this process's part again, and let in whom there is room for."""
        shares = {**self._others, self._number: (self._queue.running, self._queue.waiting)}
        self._queue.room = allotment(self.total_room, self._number, shares)
        waiting = sum(each for _, each in self._others.values())
        self._queue.max_waiting = max(0, self._config.max_waiting - waiting)
        self._grant()

    # -- Admission ------------------------------------------------------------------------------------------------

    def resize(self, workers: int) -> None:
        super().resize(workers)
        self.share()

    def _set_room(self, room: int) -> None:
        self.total_room = room

    def arrive(self, client: Client, prompt_tokens: float, share: str) -> Any:
        ticket = super().arrive(client, prompt_tokens, share)
        if ticket.state != "running":
            self.touched()
        return ticket

    def _held(self, name: str) -> int:
        self._limited.add(name)
        return self._queue.held(name) + sum(held.get(name, 0) for held in self._held_elsewhere.values())

    def _check_limits(self, client: Client, now_s: float) -> None:
        super()._check_limits(client, now_s)
        if client.rate_per_s is not None:
            count, _ = self._taken.get(client.name, (0, 0.0))
            self._taken[client.name] = (count + 1, client.rate_per_s)

    def own_view(self) -> dict[str, Any]:
        """This process's part of `view`."""
        return dict(super().view())

    def view(self) -> Mapping[str, Any]:
        """All processes' queues as one."""
        whole = self.own_view()
        clients = {each["client"]: each for each in whole["clients"]}
        refused = Counter(whole["refused"])
        for view in self._views.values():
            refused.update(view["refused"])
            for each in view["clients"]:
                ours = clients.get(each["client"])
                if ours is None:
                    clients[each["client"]] = dict(each)
                    continue
                ours["in_flight"] += each["in_flight"]
                ours["waiting"] += each["waiting"]
                ours["oldest_wait_s"] = max(ours["oldest_wait_s"], each["oldest_wait_s"])
        for running, waiting in self._others.values():
            whole["in_flight"] += running
            whole["waiting"] += waiting
        return {
            **whole,
            "room": self.total_room,
            "max_waiting": self._config.max_waiting,
            "refused": dict(refused),
            "clients": list(clients.values()),
        }


class SharedAddresses:
    """`counts` is what a protocol class counts its connections in; those of other processes are counted in as well."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._elsewhere: dict[int, dict[str, int]] = {}

    def own(self) -> dict[str, int]:
        """Connections of this process by address."""
        others: Counter[str] = Counter()
        for each in self._elsewhere.values():
            others.update(each)
        return {address: count - others[address] for address, count in self._counts.items() if count > others[address]}

    def heard(self, source: int, counts: dict[str, int]) -> None:
        """All connections of another process by address."""
        before = self._elsewhere.get(source, {})
        self._elsewhere[source] = counts
        for address in {*before, *counts}:
            self._counts[address] += counts.get(address, 0) - before.get(address, 0)
            if self._counts[address] <= 0:
                del self._counts[address]

    def gone(self, source: int) -> None:
        self.heard(source, {})
        del self._elsewhere[source]
