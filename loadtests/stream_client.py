"""One chat call over HTTP, stamped on the monotonic clock: what came, when, from which worker, and how it failed.

`ChatClient.call` never raises for what a server does: every failure is classified in the `Answer`. Called by drive.py
and users.py. Not here: when to send (drive.py), what the figures mean (measures.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from loadtests.chat_events import Chunk, Usage, error_text
from loadtests.clock import Clock
from loadtests.measures import ErrorKind
from loadtests.sse import EventReader

CHAT_PATH = "/v1/chat/completions"
EXPLAIN = ("x-trieway-explain", "1")
"""Asks the router for response headers that say where the request went; workers and other routers ignore it."""
WORKER_HEADER = "x-trieway-worker"
SESSION_HEADER = "x-session-id"
"""The router's default for naming a conversation."""

_Chunks = msgspec.json.Decoder(Chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one call brought. Times are seconds on the client's clock, durations count from `sent_s`.

    `gaps_s` are the pauses between output events. `cached_tokens` is None where usage has no such detail, which for
    SGLang also means zero (see drive.settle_cached_tokens). `text` is the answer as said, without reasoning.
    """

    sent_s: float
    e2e_s: float
    ttft_s: float | None = None
    gaps_s: Sequence[float] = ()
    text: str = ""
    usage: Usage | None = None
    worker: str | None = None
    error: ErrorKind | None = None
    error_detail: str = ""

    @property
    def cached_tokens(self) -> int | None:
        details = None if self.usage is None else self.usage.prompt_tokens_details
        return None if details is None else details.cached_tokens


class ChatClient:
    """Calls one endpoint. The session is the caller's, who closes it; `client_session` makes a fitting one."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._session = session
        self._url = base_url.rstrip("/") + CHAT_PATH
        self._headers = {"content-type": "application/json", EXPLAIN[0]: EXPLAIN[1], **(headers or {})}
        self._clock = clock

    async def call(self, body: Mapping[str, object], *, session_id: str | None = None) -> Answer:
        """One call to its end, streamed when the body says so."""
        reading = _Reading(self._clock)
        headers = self._headers if session_id is None else {**self._headers, SESSION_HEADER: session_id}
        data = msgspec.json.encode(body)
        reading.sent_s = self._clock()
        try:
            async with self._session.post(self._url, data=data, headers=headers) as response:
                reading.worker = response.headers.get(WORKER_HEADER)
                await reading.read(response)
        except TimeoutError:
            reading.fail(ErrorKind.TIMEOUT, "no end within the client's timeout")
        except aiohttp.ClientPayloadError as error:
            reading.fail(ErrorKind.TRUNCATED, f"the answer broke off: {error}")
        except (aiohttp.ClientError, OSError) as error:
            kind = ErrorKind.TRUNCATED if reading.started else ErrorKind.CONNECTION
            reading.fail(kind, f"{type(error).__name__}: {error}")
        return reading.answer()


def client_session(*, timeout_s: float, limit: int = 0) -> aiohttp.ClientSession:
    """A session that keeps connections alive; at most `limit` at once (0: as many as calls are in flight)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, 10.0)),
        read_bufsize=2**20,
    )


class _Reading:
    """The state of one call while it is read."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.sent_s = 0.0
        self.started = False
        self.worker: str | None = None
        self._first_s: float | None = None
        self._last_s = 0.0
        self._gaps_s: list[float] = []
        self._text: list[str] = []
        self._usage: Usage | None = None
        self._error: tuple[ErrorKind, str] | None = None

    def fail(self, kind: ErrorKind, detail: str) -> None:
        """Records the first failure; later ones are its consequences."""
        if self._error is None:
            self._error = (kind, detail[:500])

    async def read(self, response: aiohttp.ClientResponse) -> None:
        self.started = True
        if response.status >= 400:
            body = await response.read()
            self.fail(ErrorKind.HTTP_STATUS, f"{response.status} {error_text(body)}")
        elif response.content_type == "text/event-stream":
            await self._read_events(response)
        else:
            self._take(await response.read(), self._clock(), streamed=False)

    async def _read_events(self, response: aiohttp.ClientResponse) -> None:
        reader = EventReader()
        done = False
        async for piece in response.content.iter_any():
            now_s = self._clock()
            for data in reader.feed(piece):
                if data == b"[DONE]":
                    done = True
                else:
                    self._take(data, now_s, streamed=True)
        if not done:
            self.fail(ErrorKind.TRUNCATED, "the stream ended without [DONE]")

    def _take(self, data: bytes, now_s: float, *, streamed: bool) -> None:
        """One event, or a whole answer that was not streamed."""
        try:
            chunk = _Chunks.decode(data)
        except msgspec.DecodeError as error:
            self.fail(ErrorKind.PROTOCOL, f"{error}: {data[:200]!r}")
            return
        if chunk.is_error:
            self.fail(ErrorKind.STREAM_ERROR, error_text(data))
        if chunk.usage is not None:
            self._usage = chunk.usage
        text = chunk.text()
        if text:
            self._text.append(text)
        if streamed and chunk.has_output():
            if self._first_s is None:
                self._first_s = now_s
            else:
                self._gaps_s.append(now_s - self._last_s)
            self._last_s = now_s

    def answer(self) -> Answer:
        kind, detail = self._error or (None, "")
        return Answer(
            sent_s=self.sent_s,
            e2e_s=self._clock() - self.sent_s,
            ttft_s=None if self._first_s is None else self._first_s - self.sent_s,
            gaps_s=tuple(self._gaps_s),
            text="".join(self._text),
            usage=self._usage,
            worker=self.worker,
            error=kind,
            error_detail=detail,
        )
