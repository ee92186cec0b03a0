"""The client's side of the port: uvicorn's HTTP/1.1 protocol, on which model calls take a way of their own.

Model calls are handed to request.model_call as they are parsed; every other request is replayed to uvicorn's protocol
and goes through ASGI as ever. Requests of one connection are answered in their order, whichever way they take. Bounds
headers in size and time, and answers malformed HTTP in OpenAI's error shape. Given to uvicorn as `http=`.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.errors import (
    ConcurrencyLimited,
    HeadersTooLarge,
    InternalError,
    InvalidBody,
    RequestTooSlow,
    RouterError,
)
from router.request.endpoints import MODEL_CALLS, PUT_TOO, ModelCalls
from router.request.head import Head
from router.request.model_call import ModelCall
from router.request.over_asgi import Split
from router.request.repeat import Repeat
from router.request.reply import STATUS_LINES

log = logging.getLogger(__name__)

HEADERS_S = 30.0
"""Seconds from the first byte of a request to the end of its headers."""
BODY_S = 60.0
"""Seconds between two pieces of a request's body, and for a whole one that comes more slowly than the rate below."""
BODY_BYTES_PER_S = 500.0
"""A body gets a second more for so many bytes that came (the rate that Apache's mod_reqtimeout asks for)."""
SPREAD = 0.25
"""These deadlines are up to so much longer, by the client's port: thousands of connections that were opened together
are not closed together, which would hold everybody else up."""
LESSONS = 16
"""A client whose heads differ so often is read anew every time."""
RARELY_TWICE = frozenset({b"x-request-id", b"traceparent", b"idempotency-key"})
"""A head with one of these is not expected again."""
POSTED = {path.encode(): path for path in MODEL_CALLS}
PUT = {path.encode(): path for path in PUT_TOO}


class RouterProtocol(HttpToolsProtocol):
    """One connection of a client. `limited_protocol` makes the class of one server, with its limits and its count."""

    max_header_bytes = 64 * 2**10
    max_per_address = 0
    addresses: ClassVar[Counter[str]] = Counter()  # of connections that count towards max_per_address

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = self.config.app
        self._calls: ModelCalls | None = app.model_calls if isinstance(app, Split) else None
        self._active: ModelCall | RequestResponseCycle | None = None
        self._lean: ModelCall | None = None
        self._header_bytes = 0
        self._unparsed_bytes = 0
        self._in_headers = True
        self._heard_s = 0.0
        self._began_s = 0.0
        self._body_bytes = 0
        self._patience = 1.0
        self._address: str | None = None
        self._refusal: RouterError | None = None
        self._deaf = False
        self._advancing = False
        self._piece_bytes = 0
        self._first_bytes = 0
        self._resting = True
        self._begun = 0
        self._head: Head | None = None
        self._repeat: Repeat | None = None
        self._repeated: Head | None = None
        self._learned = 0
        self._missing_bytes = 0  # of a body whose head was recognised

    # -- the transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._heard_s = self._began_s = self.loop.time()
        if self.client is not None:
            self._patience += SPREAD * (self.client[1] % 101) / 101
            if self.max_per_address:
                self._count(self.client[0])
        self.timeout_keep_alive_task = self.loop.call_later(HEADERS_S * self._patience, self._look)

    def _count(self, address: str) -> None:
        """One connection more from there, or one too many."""
        if self.addresses[address] >= self.max_per_address:
            self._refuse(
                ConcurrencyLimited(
                    f"{self.max_per_address} connections are open from {address} (server.max_connections_per_address)."
                )
            )
        else:
            self._address = address
            self.addresses[address] += 1

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._heard_s = self.loop.time()
        try:
            if self._missing_bytes:
                self._take_rest(data)
                return
            repeat = self._repeat
            if repeat is not None and self._resting and self._active is None:
                body, head, calls = repeat.body(data), self._repeated, self._calls
                if body is not None and head is not None and calls is not None and not self._too_many():
                    self._began_s = self._heard_s
                    self._learned = 0
                    self._active = call = self._call(calls, head, len(body))
                    call.take_whole(body)
                    return
                if body is None and self._begins(repeat, data):
                    return
        except Exception as error:  # noqa: BLE001  told to the client and recorded
            self._failed(error)
            return
        self._parse(data)

    def _begins(self, repeat: Repeat, data: bytes) -> bool:
        """Whether `data` is the beginning, and not all, of a request with the last one's head: then it is taken."""
        head, calls = self._repeated, self._calls
        begin = repeat.begin(data)
        if not begin or head is None or calls is None:
            return False
        length, here = repeat.length_bytes(data, begin), len(data) - begin
        if here >= length or self._too_many():
            return False
        self._began_s = self._heard_s
        self._learned = 0
        self._active = self._lean = call = self._call(calls, head, length)
        self._resting = self._in_headers = False
        self._unparsed_bytes = self._body_bytes = 0
        self._missing_bytes = length
        if call.refused is not None:
            call.take_turn()
        if here:
            self._take_rest(memoryview(data)[begin:])  # copied once, when all is there
        return True

    def _take_rest(self, data: bytes | memoryview) -> None:
        """More of the body that a recognised head announced, and perhaps what follows it."""
        call, missing = self._lean, self._missing_bytes
        assert call is not None
        piece = data if len(data) <= missing else data[:missing]
        self._missing_bytes -= len(piece)
        self._body_bytes += len(piece)
        call.take_body(piece, its_turn=True)
        if self._missing_bytes:
            return
        self._resting = self._in_headers = True
        self._lean = None
        call.end_body(its_turn=True)
        if len(data) > missing and not self.transport.is_closing():
            self.data_received(bytes(data[missing:]))

    def _parse(self, data: bytes) -> None:
        resting = self._resting
        self._piece_bytes = len(data)
        if self._in_headers:
            self._unparsed_bytes += self._piece_bytes
        self._begun = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # what follows would be another protocol
            if self.cycle is not None:
                self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            self._unparsed(error)
        else:
            if self._in_headers and self._unparsed_bytes > self.max_header_bytes and not self.transport.is_closing():
                self._refuse(self._headers_too_large())
            elif resting and self._begun == 1 and self._head is not None:
                self._learn(data, self._head)

    def _learn(self, data: bytes, head: Head) -> None:
        """Remember the head of `data`, with which one request begins. Not one that will hardly come again."""
        self._repeat = None
        if head.keep_alive and not head.expects and self._learned < LESSONS and not RARELY_TWICE & head.named.keys():
            self._learned += 1
            self._repeat, self._repeated = Repeat.of(data), head

    def connection_lost(self, exc: Exception | None) -> None:
        active, self._active = self._active, None
        if isinstance(active, ModelCall):
            active.client_left()
        elif active is not None:
            active.disconnected = True
            active.message_event.set()
        self.pipeline.clear()
        if self._address is not None:
            self.addresses[self._address] -= 1
            if not self.addresses[self._address]:
                del self.addresses[self._address]
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def pause_writing(self) -> None:
        if isinstance(self._active, ModelCall):
            self._active.full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if isinstance(self._active, ModelCall):
            self._active.client_reads()

    # -- the parser ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._resting = False
        self._begun += 1
        self._head = None
        self._header_bytes = 0
        self._first_bytes = self._piece_bytes
        self._body_bytes = 0
        self._began_s = self._heard_s
        self._in_headers = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:
            self.headers.append((name.lower(), value))
            return
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.max_header_bytes:
            raise self._headers_too_large()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._first_bytes + self._unparsed_bytes > self.max_header_bytes:  # else they cannot be too large
            self._header_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if self._header_bytes > self.max_header_bytes:
                raise self._headers_too_large()
            self._header_bytes = 0
        parser, target = self.parser, self.url
        path = target.partition(b"?")[0]
        method = parser.get_method()
        known = POSTED.get(path) if method == b"POST" else PUT.get(path) if method == b"PUT" else None
        if known is None or self._calls is None or self._too_many():
            self._lean = None
            self._by_asgi()
            return
        version = parser.get_http_version()
        keep_alive = version == "1.1" and parser.should_keep_alive()
        head = self._head = Head(known, target, self.headers, version=version, keep_alive=keep_alive)
        length = head.named.get(b"content-length")
        before = self.cycle
        self._lean = call = self._call(self._calls, head, None if length is None else int(length))
        if before is None or before.response_complete:
            self._active = call
            if call.refused is not None or head.expects:
                call.take_turn()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((call, None))  # type: ignore[arg-type]

    def _call(self, calls: ModelCalls, head: Head, length_bytes: int | None) -> ModelCall:
        call = ModelCall(
            calls, head, length_bytes, self.transport, self.loop, self.tasks, self._ended  # type: ignore[arg-type]
        )
        self.cycle = call  # type: ignore[assignment]
        if self.flow.write_paused:
            call.full = True
        return call

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        call = self._lean
        if call is None:
            super().on_body(body)
        else:
            call.take_body(body, its_turn=call is self._active)

    def on_message_complete(self) -> None:
        self._resting = True
        self._in_headers = True
        self._unparsed_bytes = 0
        call, self._lean = self._lean, None
        if call is None:
            super().on_message_complete()
        else:
            call.end_body(its_turn=call is self._active)

    def _by_asgi(self) -> None:
        """Replays what was parsed to uvicorn's protocol."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        super().on_url(url)
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _too_many(self) -> bool:
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)

    # -- turns --------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def _ended(self, call: ModelCall) -> None:
        if self._active is not call:
            return
        if self.pipeline or self._refusal is not None or self._advancing or self.flow.read_paused:
            self.on_response_complete()
        else:  # the same, where nothing else is to be done
            self.server_state.total_requests += 1
            self._active = None
            self._heard_s = self._began_s = self.loop.time()

    def on_response_complete(self) -> None:
        """The active request is answered: the next one's turn, if it is there already."""
        self.server_state.total_requests += 1
        self._active = None
        if self._advancing:
            return  # the loop below, further up the stack, takes it
        self._advancing = True
        try:
            while self._active is None and not self.transport.is_closing():
                if not self.pipeline:
                    self._rest()
                    return
                cycle: Any
                cycle, app = self.pipeline.pop()
                if self._refusal is not None and cycle.more_body:
                    self._say(self._refusal)  # the rest of its body can never come
                    return
                if not self.pipeline:
                    self._heard_s = self._began_s = self.loop.time()
                    self.flow.resume_reading()  # the rest of its body may be yet to come
                if isinstance(cycle, ModelCall):
                    self._active = cycle
                    cycle.full = self.flow.write_paused
                    cycle.take_turn()
                else:
                    self._start_asgi_task(cycle, app)
        finally:
            self._advancing = False

    def _rest(self) -> None:
        """Nothing is left to be answered."""
        self._heard_s = self._began_s = self.loop.time()
        if self._refusal is not None:
            self._say(self._refusal)
        else:
            self.flow.resume_reading()

    def _look(self) -> None:
        """Now and then: is this connection still worth keeping?"""
        if self.transport is None or self.transport.is_closing():
            return
        now_s, due_s, wait_s = self.loop.time(), self._due_s(), float(self.timeout_keep_alive)
        if due_s is not None:
            wait_s = due_s - now_s
            if wait_s <= 0:
                if self._reads_request:
                    self._refuse(RequestTooSlow(f"The request did not come within {now_s - self._began_s:.0f} s."))
                else:
                    self.transport.close()
                return
        self.timeout_keep_alive_task = self.loop.call_later(wait_s, self._look)

    @property
    def _reads_request(self) -> bool:
        """Whether a part of a request is here and the rest is not."""
        active = self._active
        unread = isinstance(active, RequestResponseCycle) and active.more_body
        return self._lean is not None or unread or (active is None and self._unparsed_bytes > 0)

    def _due_s(self) -> float | None:
        """When this connection is to be closed if nothing happens; None while it waits for us."""
        active = self._active
        if isinstance(active, ModelCall) and active.running:
            return None
        if not self._reads_request:
            return None if active is not None else self._heard_s + self.timeout_keep_alive
        if self._in_headers:
            return self._began_s + HEADERS_S * self._patience
        slow_s = self._began_s + self._body_bytes / BODY_BYTES_PER_S
        return min(self._heard_s, slow_s) + BODY_S * self._patience

    # -- refusals -----------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidBody(f"This is not a valid HTTP/1.1 request: {msg}"))

    def _unparsed(self, error: httptools.HttpParserError) -> None:
        """Whose fault it was: what is no HTTP is the client's, an exception of ours in between is not."""
        ours = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
        if ours is None or isinstance(ours, httptools.HttpParserError):
            self.send_400_response(str(error) or "it cannot be parsed")
        elif isinstance(ours, RouterError):
            self._refuse(ours)
        else:
            self._failed(ours)

    def _failed(self, error: BaseException) -> None:
        log.error("a request failed as it came in", exc_info=error)
        self._refuse(InternalError(f"The router failed: {type(error).__name__}."))

    def _headers_too_large(self) -> RouterError:
        limit = self.max_header_bytes
        return HeadersTooLarge(
            f"The request line and headers are over the limit of {limit:,} bytes (--max-header-bytes)."
        )

    def _refuse(self, error: RouterError) -> None:
        """No further request can be read from this connection. What was asked before is answered first."""
        self._deaf = True
        active: Any = self._active
        if active is None or (isinstance(active, ModelCall) and not active.running):
            if active is not None and active.response_complete:
                self.transport.close()
            else:
                self._say(error)
        elif active is self.cycle and isinstance(active, RequestResponseCycle) and active.more_body:
            if active.response_started:
                self.transport.close()
            else:
                self._say(error)
        else:
            self._refusal = error
            self.flow.pause_reading()

    def _say(self, error: RouterError) -> None:
        body = error.body()
        self.transport.write(
            b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINES[error.status], len(body), body)
        )
        self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        """The timer looks after itself: setting it for every request would cost more than it is worth."""


def limited_protocol(max_header_bytes: int, max_per_address: int = 0) -> type[RouterProtocol]:
    """A protocol class whose requests may have at most that many bytes of request line and headers, and which holds at
    most so many connections of one address; 0: any number."""
    own = {"max_header_bytes": max_header_bytes, "max_per_address": max_per_address, "addresses": Counter[str]()}
    protocol: type[RouterProtocol] = type("LimitedProtocol", (RouterProtocol,), own)
    return protocol
