"""Makes faults happen: on each request as it comes in, and on the worker as a whole at their time.

Also answers /simulated/faults, by which a test changes the schedule of a running worker. Draws from its own seeded
random source. Called by server.py. Not here: what a fault is (faults).
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import TYPE_CHECKING

import msgspec

from workers.simulated.errors import BadOption
from workers.simulated.faults import DEFAULT_RESTART_S, INSTANT, KINDS, Fault, FaultSchedule, parse_faults
from workers.simulated.reply import Reply, Request

if TYPE_CHECKING:
    from workers.simulated.server import Server


class FaultInjector:
    """One server's faults. Times in the schedule count from `start`; times of added faults from when they are added."""

    def __init__(self, schedule: FaultSchedule, server: Server) -> None:
        self._faults: list[Fault] = list(schedule.faults)
        self._fired: set[int] = set()
        self._server = server
        self._rng = random.Random(server.options.seed)
        self._start_s = 0.0
        self._changed = asyncio.Event()
        self._restarting = False

    def start(self, now_s: float) -> None:
        """The schedule's zero, on the monotonic clock."""
        self._start_s = now_s
        self._apply_states()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time() - self._start_s

    async def run(self) -> None:
        """Fires what happens to the worker as a whole, at its time, until cancelled."""
        while True:
            self._changed.clear()
            now_s = self._now_s()
            for fault in list(self._faults):
                if fault.kind in INSTANT and fault.at_s <= now_s and id(fault) not in self._fired:
                    self._fired.add(id(fault))
                    await self._fire(fault)
            self._apply_states()
            await self._listen_or_not()
            later = [edge - now_s for fault in self._faults for edge in self._edges(fault) if edge > now_s]
            try:
                await asyncio.wait_for(self._changed.wait(), min(later, default=None))
            except TimeoutError:
                continue

    def _edges(self, fault: Fault) -> list[float]:
        return [fault.at_s] if fault.for_s is None else [fault.at_s, fault.at_s + fault.for_s]

    async def _fire(self, fault: Fault) -> None:
        worker = self._server.worker
        if fault.kind == "flush_cache":
            for rank in worker.ranks:
                rank.drop_unused_cache()
            return
        self._restarting = True
        worker.ready = False
        self._server.refuse()
        self._server.reset_connections()
        worker.abort_all()
        await asyncio.sleep(fault.for_s or DEFAULT_RESTART_S)
        for rank in worker.ranks:
            rank.restart()
        self._restarting = False
        await self._server.listen()

    def _apply_states(self) -> None:
        now_s = self._now_s()
        active = {fault.kind for fault in self._faults if fault.active(now_s)}
        self._server.worker.ready = "slow_start" not in active and not self._restarting
        ranks = self._server.worker.ranks
        for rank in ranks:
            rank.freeze_load(frozen="stale_load" in active)

    async def _listen_or_not(self) -> None:
        now_s = self._now_s()
        if any(fault.kind == "refuse" and fault.active(now_s) for fault in self._faults):
            self._server.refuse()
        else:
            await self._server.listen()

    async def intercept(self, request: Request, reply: Reply) -> bool:
        """Applies what is active to one request. True when the request has been dealt with."""
        if not self._faults or request.path == "/simulated/faults":
            return False
        now_s = self._now_s()
        for fault in self._faults:
            if not fault.active(now_s) or not fault.applies_to(request.path):
                continue
            if fault.probability < 1 and self._rng.random() >= fault.probability:
                continue
            if await self._apply(fault, reply):
                return True
        return False

    async def _apply(self, fault: Fault, reply: Reply) -> bool:
        if fault.kind in ("hang", "stall_health"):
            return await _hang(fault, reply)
        if fault.kind == "error":
            message = "Simulated fault."
            kind = "InternalServerError" if fault.status == 500 else str(fault.status)
            body = {"object": "error", "message": message, "type": kind, "param": None, "code": fault.status}
            reply.send_json(body, fault.status)
            return True
        if fault.kind == "slow_bytes":
            reply.throttle(fault.bytes_per_s)
        elif fault.kind == "wrong_length":
            reply.length_error = fault.extra_bytes
        elif fault.kind in ("reset", "cut", "truncate"):
            reply.transform = _Breaker(fault, reply)
        return False

    def administer(self, request: Request, reply: Reply) -> None:
        """GET lists, POST adds a fault or a list of them (times from now), DELETE removes all."""
        if request.method == "POST":
            try:
                given = msgspec.json.decode(request.body)
                added = parse_faults(given if isinstance(given, list) else [given])
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                reply.send_json({"error": {"message": f"not JSON: {error}"}}, 400)
                return
            except BadOption as error:
                reply.send_json({"error": {"message": str(error)}}, 400)
                return
            now_s = self._now_s()
            self._faults += [dataclasses.replace(fault, at_s=fault.at_s + now_s) for fault in added.faults]
        elif request.method == "DELETE":
            self._faults.clear()
            self._fired.clear()
        elif request.method != "GET":
            reply.send_json({"detail": "Method Not Allowed"}, 405)
            return
        self._changed.set()
        self._apply_states()
        now_s = self._now_s()
        listed = [{**dataclasses.asdict(fault), "active": fault.active(now_s)} for fault in self._faults]
        reply.send_json({"now_s": now_s, "faults": listed, "kinds": KINDS})


async def _hang(fault: Fault, reply: Reply) -> bool:
    """Waits out the fault, or until the client leaves. True where no answer is to follow."""
    gone = asyncio.Event()
    reply.on_close = gone.set
    try:
        await asyncio.wait_for(gone.wait(), fault.seconds)
    except TimeoutError:
        reply.on_close = None
        return False
    return True


class _Breaker:
    """Counts the events of one answer and breaks the connection after enough of them."""

    def __init__(self, fault: Fault, reply: Reply) -> None:
        self._fault = fault
        self._reply = reply
        self._events = 0
        self._streams = False
        self._broken = False

    def __call__(self, data: bytes) -> bytes:
        if self._broken:
            return b""
        self._streams = self._streams or b"transfer-encoding: chunked" in data
        self._events += data.count(b"data: ")
        if self._streams and self._events < self._fault.after_events:
            return data
        if not self._streams and self._fault.kind == "truncate":
            return data
        self._broken = True
        loop = asyncio.get_running_loop()
        if self._fault.kind == "truncate":
            loop.call_soon(self._reply.end_early)
            return data
        if self._fault.kind == "cut":
            loop.call_soon(self._reply.cut)
            return data if self._streams else data[: len(data) // 2]
        loop.call_soon(self._reply.reset)
        return data if self._streams else b""
