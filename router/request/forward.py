"""The way to a worker: pooled connections, header hygiene, and every foreign exception translated once.

aiohttp is used because httpx on this path costs ten times its CPU and collapses with concurrency. Called by
request.dispatch. Not here: which worker (policies), retries (dispatch), reading streams as events (relay).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from router.errors import WorkerHungUp, WorkerTimeout, WorkerUnreachable
from router.fleet.worker import Worker
from router.knob import knob, require
from router.request.reply import RawHeaders

HOP_BY_HOP = frozenset(
    name.encode()
    for name in (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
"""Headers that concern one connection only (RFC 9110, 7.6.1); never forwarded in either direction."""
_NOT_SENT = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_NOT_RETURNED = HOP_BY_HOP | {b"content-length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardConfig:
    connect_timeout_s: float = knob(5.0, "seconds to open a connection to a worker")
    first_byte_timeout_s: float = knob(600.0, "seconds from sending a request until the worker's first byte")
    idle_timeout_s: float = knob(300.0, "seconds between two pieces of an answer")
    keepalive_s: float = knob(30.0, "seconds an unused connection to a worker is kept open")

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s", "keepalive_s"):
            require(getattr(self, name) > 0, f"{name} must be positive")


class Answer:
    """A worker's answer whose status and headers are known and whose body is still to be read."""

    def __init__(self, response: aiohttp.ClientResponse, worker: Worker, config: ForwardConfig) -> None:
        self._response = response
        self._worker = worker
        self._config = config
        self.status = response.status
        self.headers: RawHeaders = [
            (name, value) for name, value in response.raw_headers if name.lower() not in _NOT_RETURNED
        ]

    @property
    def streams(self) -> bool:
        """Whether the body is server-sent events, to be relayed as they come."""
        return self._response.content_type == "text/event-stream"

    @property
    def length_bytes(self) -> int | None:
        return self._response.content_length

    @property
    def retry_after(self) -> str | None:
        return self._response.headers.get("retry-after")

    async def read(self) -> bytes:
        """The whole body. Raises WorkerHungUp or WorkerTimeout."""
        with _translate(self._worker, self._config):
            async with asyncio.timeout(self._config.first_byte_timeout_s):
                return await self._response.read()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it arrives. Raises WorkerHungUp or WorkerTimeout."""
        content = self._response.content
        wait_s = self._config.first_byte_timeout_s
        while True:
            with _translate(self._worker, self._config):
                async with asyncio.timeout(wait_s):
                    piece = await content.readany()
            if not piece:
                return
            yield piece
            wait_s = self._config.idle_timeout_s


class Forwarder:
    """The pool of connections to all workers. One per app; `close` ends it."""

    def __init__(self, config: ForwardConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._config.keepalive_s),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=65_536,
            max_field_size=65_536,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def send(self, worker: Worker, target: str, headers: RawHeaders, body: bytes) -> AsyncIterator[Answer]:
        """POST `body`, byte for byte, to `target` (path and query) on the worker; yields its answer.

        Leaving the context before the body was read to its end closes the connection, so that the worker stops
        generating. Raises WorkerUnreachable, WorkerHungUp or WorkerTimeout.
        """
        if self._session is None:
            raise RuntimeError("Forwarder.start was not awaited")
        url = URL(worker.base_url + target, encoded=True)
        with _translate(worker, self._config):
            async with asyncio.timeout(self._config.first_byte_timeout_s):
                response = await self._session.post(
                    url, data=body, headers=_outgoing(headers, worker), allow_redirects=False
                )
        try:
            yield Answer(response, worker, self._config)
        finally:
            response.close()  # returns the connection to the pool when the body was read to its end


def _outgoing(headers: RawHeaders, worker: Worker) -> CIMultiDict[str]:
    named = connection_options(headers)
    sent: CIMultiDict[str] = CIMultiDict()
    for name, value in headers:
        if name not in _NOT_SENT and name not in named:
            sent.add(name.decode("latin-1"), value.decode("latin-1"))
    for extra, text in worker.extra_headers:
        sent[extra] = text
    return sent


def connection_options(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Header names that a Connection header declares hop-by-hop."""
    listed = [value for name, value in headers if name == b"connection"]
    return frozenset(option.strip().lower() for value in listed for option in value.split(b","))


@contextmanager
def _translate(worker: Worker, config: ForwardConfig) -> Iterator[None]:
    """Foreign exceptions to ours, each with the worker's name and what to look at."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise WorkerUnreachable(
            f"Worker {worker.id} did not accept a connection within {config.connect_timeout_s:g} s "
            "(forward.connect_timeout_s)."
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise WorkerUnreachable(f"Worker {worker.id} cannot be reached: {error.os_error.strerror}.") from error
    except TimeoutError as error:
        raise WorkerTimeout(
            f"Worker {worker.id} sent nothing for {config.first_byte_timeout_s:g} s before its first byte "
            f"(forward.first_byte_timeout_s) or {config.idle_timeout_s:g} s after it (forward.idle_timeout_s)."
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise WorkerHungUp(f"Worker {worker.id} closed the connection before its answer was complete.") from error
