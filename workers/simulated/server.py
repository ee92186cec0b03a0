"""The simulated worker as a running server: builds its parts, listens, and stops cleanly. Start reading here.

A request goes connection -> faults -> routes -> an API module -> worker -> rank (engine and wall time), and its answer
back through Reply. Every task lives in one task group. Called by cli.py and by tests (`running`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator

from workers.simulated import routes
from workers.simulated.connection import Connection
from workers.simulated.errors import ApiError, BadOption
from workers.simulated.fault_injector import FaultInjector
from workers.simulated.faults import FaultSchedule
from workers.simulated.kv_events import KvPublisher
from workers.simulated.metrics import WorkerMetrics
from workers.simulated.options import Options
from workers.simulated.rank import Rank
from workers.simulated.reply import Reply, Request
from workers.simulated.worker import SimulatedWorker

log = logging.getLogger("workers.simulated")


class Server:
    """One listening simulated worker. Use `running`."""

    def __init__(self, options: Options, faults: FaultSchedule, group: asyncio.TaskGroup) -> None:
        self.options = options
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._publishers: list[KvPublisher] = []
        self.metrics = WorkerMetrics(options)
        self.port = options.port
        self._open_publishers()
        self.worker = SimulatedWorker(options, [self._make_rank(index) for index in range(options.dp_size)])
        self.injector = FaultInjector(faults, self)

    def _open_publishers(self) -> None:
        """One for each rank. Raises BadOption, with none left open."""
        config = self.options.kv_events
        if config is None:
            return
        try:
            for rank in range(self.options.dp_size):
                self._publishers.append(KvPublisher(config, rank))
        except BadOption:
            for publisher in self._publishers:
                publisher.close()
            raise

    def _make_rank(self, index: int) -> Rank:
        publisher = self._publishers[index] if self._publishers else None
        return Rank(self.options, index, self.metrics.of_rank(index), publisher)

    async def start(self) -> None:
        """Starts the engines and listens. Raises BadOption when the address cannot be used."""
        loop = asyncio.get_running_loop()
        for rank in self.worker.ranks:
            self._own(rank.run())
        for publisher in self._publishers:
            self._own(publisher.serve_replay())
        await self.listen()
        self.injector.start(loop.time())
        self._own(self.injector.run())

    async def listen(self) -> None:
        """Accepts connections, on the port it had before if it ever had one. Raises BadOption."""
        if self._listener is not None:
            return
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._handle, self._connections), self.options.host, self.port, backlog=4096
            )
        except OSError as error:
            address, why = f"{self.options.host}:{self.port}", os.strerror(error.errno or 0)
            raise BadOption(f"cannot listen on {address}: {why}; choose another --port") from error
        self.port = self._listener.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Stops accepting connections; those that exist live on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def reset_connections(self) -> None:
        """Drops every connection with a TCP reset."""
        for connection in list(self._connections):
            connection.reset()

    def stop(self) -> None:
        """Stops listening, drops every connection, ends every task."""
        self.refuse()
        for connection in list(self._connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        for publisher in self._publishers:
            publisher.close()

    def _own(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _handle(self, request: Request, reply: Reply) -> None:
        self._own(self._answer(request, reply))

    async def _answer(self, request: Request, reply: Reply) -> None:
        """Answers one request, whatever happens."""
        try:
            if not await self.injector.intercept(request, reply):
                await self._route(request, reply)
        except ApiError as error:
            routes.answer_error(request, reply, error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            if reply.started:
                reply.reset()
            else:
                reply.send_json(
                    {
                        "object": "error",
                        "message": "Internal server error",
                        "type": "InternalServerError",
                        "param": None,
                        "code": 500,
                    },
                    500,
                )

    async def _route(self, request: Request, reply: Reply) -> None:
        if request.path == "/metrics" and self.options.metrics:
            self.metrics.http("/metrics", request.method).total += 1
            reply.send(self.metrics.render(self.worker), content_type=b"text/plain; version=0.0.4; charset=utf-8")
            return
        if request.path == "/simulated/faults":
            self.injector.administer(request, reply)
            return
        route = routes.find(request.path)
        if routes.refused(self.options, route, request):
            reply.send_json({"error": "Unauthorized"}, 401)
        elif route is None:
            reply.send_json({"detail": "Not Found"}, 404)
        elif request.method not in route.methods:
            allow = b"allow: %s\r\n" % ", ".join(sorted(route.methods)).encode()
            reply.send(b'{"detail":"Method Not Allowed"}', 405, headers=allow)
        else:
            count = self.metrics.http(routes.template(request.path), request.method)
            count.total += 1
            count.active += 1
            try:
                routes.check_content_type(route, request)
                await route.handler(self.worker, request, reply)
            finally:
                count.active -= 1


@contextlib.asynccontextmanager
async def running(options: Options, faults: FaultSchedule | None = None) -> AsyncIterator[Server]:
    """A listening server for the length of the block. `options.port` 0 takes a free port; see `Server.port`."""
    try:
        async with asyncio.TaskGroup() as group:
            server = Server(options, faults or FaultSchedule(), group)
            try:
                await server.start()
                yield server
            finally:
                server.stop()
    except BaseExceptionGroup as several:
        if len(several.exceptions) == 1:  # a task group wraps even the one error of its own body
            raise several.exceptions[0] from None
        raise


async def serve(options: Options, faults: FaultSchedule) -> None:
    """Runs until SIGINT or SIGTERM. Logs one line when it listens. Raises BadOption when it cannot start."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with running(options, faults) as server:
        log.info(
            "simulated worker %r on http://%s:%d (%s)", options.model, options.host, server.port, options.summary()
        )
        await stopped.wait()
