"""The way to a worker: pooled connections, deadlines, and every foreign exception translated once.

Called by request.dispatch. Not here: which headers go on (head), which worker (policies), retries on another one
(dispatch), HTTP/1.1 itself (worker_connection), reading streams as events (relay).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from router.compiled import interpreted
from router.errors import WorkerError, WorkerTimeout, WorkerUnreachable
from router.fleet.worker import Worker
from router.knob import knob, require
from router.request.head import extra_headers
from router.request.reply import spelled
from router.request.strand import Strand
from router.request.worker_connection import WorkerConnection


@interpreted
@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardConfig:
    connect_timeout_s: float = knob(5.0, "seconds to open a connection to a worker")
    first_byte_timeout_s: float = knob(600.0, "seconds from sending a request until the worker's first byte")
    idle_timeout_s: float = knob(300.0, "seconds between two pieces of an answer")
    keepalive_s: float = knob(30.0, "seconds an unused connection to a worker is kept open")

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s", "keepalive_s"):
            require(getattr(self, name) > 0, f"{name} must be positive")


class _Place:
    """One address: what every request to it begins with, and its unused connections, the last used one last."""

    __slots__ = ("host", "idle", "path", "port", "secure", "tail")

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self.secure = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if self.secure else 80)
        self.path = parts.path.encode("latin-1")
        self.tail = b" HTTP/1.1\r\nhost: " + parts.netloc.encode("latin-1") + b"\r\n"
        self.idle: list[tuple[WorkerConnection, float]] = []

    def take(self) -> WorkerConnection | None:
        while self.idle:
            connection, _ = self.idle.pop()
            if connection.reusable:
                return connection
        return None


class Sent:
    """A request on its way, or waiting for a connection that has to be opened first."""

    __slots__ = ("body", "connection", "head", "place", "worker")

    def __init__(self, worker: Worker, place: _Place, head: bytes, body: bytes) -> None:
        self.worker = worker
        self.place = place
        self.head = head
        self.body = body
        self.connection: WorkerConnection | None = None

    def drop(self) -> None:
        """Break it off, unless somebody has waited for its answer."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.end()


class Forwarder:
    """The pool of connections to all workers. One per app; `close` ends it."""

    def __init__(self, config: ForwardConfig, tls: ssl.SSLContext | None = None) -> None:
        self._config = config
        self._tls = tls
        self._places: dict[str, _Place] = {}
        self._open: set[WorkerConnection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweep: asyncio.TimerHandle | None = None
        shortest_s = min(config.first_byte_timeout_s, config.idle_timeout_s, config.keepalive_s)
        self._sweep_s = min(1.0, max(0.02, shortest_s / 8))

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sweep = self._loop.call_later(self._sweep_s, self._look)

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        while self._open:
            for connection in list(self._open):
                connection.close()
            await asyncio.sleep(0)

    def send(self, worker: Worker, target: bytes, lines: bytes, body: bytes) -> Sent:
        """POST `body`, byte for byte, to `target` (path and query) on the worker, with these header lines. It goes out
        at once where a connection is free: what the request does not wait for can be done before `answered`, which
        must be awaited next.
        """
        place = self._place(worker)
        head = b"POST %b%b%b%bcontent-length: %d\r\n\r\n" % (place.path, target, place.tail, lines, len(body))
        sent = Sent(worker, place, head, body)
        self._go(sent)
        return sent

    async def get(self, worker: Worker, target: str, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of a GET: for what is asked of every worker every second, at a tenth of what httpx costs.

        Raises WorkerUnreachable, WorkerHungUp or WorkerTimeout.
        """
        place = self._place(worker)
        own = spelled(extra_headers(worker.extra_headers))
        head = b"GET %b%b%b%b\r\n" % (place.path, target.encode("latin-1"), place.tail, own)
        loop = asyncio.get_running_loop()
        found: asyncio.Future[tuple[int, bytes]] = loop.create_future()

        async def ask() -> None:
            try:
                sent = Sent(worker, place, head, b"")
                self._go(sent)
                answer = await self.answered(sent)
                try:
                    body = await answer.read()
                finally:
                    self.ended(answer)
            except WorkerError as error:
                if not found.done():
                    found.set_exception(error)
            else:
                if not found.done():
                    found.set_result((answer.status, body))

        strand = Strand(loop)
        loop.call_soon(strand.start, ask())  # not in the stack of the caller's task
        try:
            async with asyncio.timeout(timeout_s):
                return await found
        except TimeoutError:
            raise WorkerTimeout(f"Worker {worker.id} did not answer {target} within {timeout_s:g} s.") from None
        finally:
            strand.cancel()

    def _place(self, worker: Worker) -> _Place:
        place = self._places.get(worker.base_url)
        if place is None:
            place = self._places[worker.base_url] = _Place(worker.base_url)
        return place

    def _go(self, sent: Sent) -> None:
        """On a connection that is free, if there is one."""
        connection = sent.connection = sent.place.take()
        if connection is not None:
            assert self._loop is not None
            connection.begin(sent.worker, sent.head, sent.body, self._loop.time())

    async def answered(self, sent: Sent) -> WorkerConnection:
        """The answer, of which status and headers are there. The caller must `end` it: what was not read to its end by
        then is broken off.

        Raises WorkerUnreachable, WorkerHungUp or WorkerTimeout.
        """
        if self._loop is None:
            raise RuntimeError("Forwarder.start was not awaited")
        while True:
            connection, sent.connection = sent.connection, None
            if connection is None:
                connection = await self._connect(sent.place, sent.worker)
                connection.begin(sent.worker, sent.head, sent.body, self._loop.time())
            try:
                if await connection.answered():
                    return connection
            except BaseException:
                connection.end()
                raise
            connection.end()  # it was closed while unused; another one, at last a new one, will do
            self._go(sent)

    def ended(self, answer: WorkerConnection) -> None:
        """The caller is done with an answer; its connection is kept for the next request where that is possible."""
        answer.end()
        worker = answer.worker
        if answer.reusable and worker is not None and self._loop is not None:
            self._places[worker.base_url].idle.append((answer, self._loop.time()))

    async def _connect(self, place: _Place, worker: Worker) -> WorkerConnection:
        loop, limit_s = self._loop, self._config.connect_timeout_s
        assert loop is not None
        tls = (self._tls or ssl.create_default_context()) if place.secure else None
        try:
            async with asyncio.timeout(limit_s):
                _, connection = await loop.create_connection(
                    lambda: WorkerConnection(self._open.discard), place.host, place.port, ssl=tls
                )
        except TimeoutError as error:
            raise WorkerUnreachable(
                f"Worker {worker.id} did not accept a connection within {limit_s:g} s (forward.connect_timeout_s)."
            ) from error
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise WorkerUnreachable(f"Worker {worker.id} cannot be reached: {why}.") from error
        self._open.add(connection)
        return connection

    def _look(self) -> None:
        """Every now and then: who has been silent for too long, and which unused connections are old?"""
        assert self._loop is not None
        config, now_s = self._config, self._loop.time()
        for connection in list(self._open):
            if not connection.busy:
                continue
            if connection.heard or connection.waits_for_client:
                connection.heard = False
                connection.quiet_since_s = now_s
                continue
            limit_s = config.idle_timeout_s if connection.began else config.first_byte_timeout_s
            if now_s - connection.quiet_since_s > limit_s and connection.worker is not None:
                connection.fail(
                    WorkerTimeout(
                        f"Worker {connection.worker.id} sent nothing for {config.first_byte_timeout_s:g} s before its "
                        f"first byte (forward.first_byte_timeout_s) or {config.idle_timeout_s:g} s after it "
                        "(forward.idle_timeout_s)."
                    )
                )
        for place in self._places.values():
            while place.idle and (place.idle[0][0].closed or now_s - place.idle[0][1] > config.keepalive_s):
                place.idle.pop(0)[0].close()
        self._sweep = self._loop.call_later(self._sweep_s, self._look)
