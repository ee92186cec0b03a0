"""One answer of a chat endpoint as it comes in, whatever brings the bytes: stamped, read, and its failure classified.

Called by stream_client.py (aiohttp) and locust_client.py (gevent). Not here: sockets, when to send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from loadtests.chat_events import Chunk, Usage, error_text
from loadtests.clock import Clock
from loadtests.measures import ErrorKind
from loadtests.sse import EventReader

_Chunks = msgspec.json.Decoder(Chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one call brought. Times are seconds on the client's clock, durations count from `sent_s`.

    `gaps_s` are the pauses between output events. `cached_tokens` is None where usage has no such detail, which for
    SGLang also means zero (see results.settle_cached_tokens). `text` is the answer as said, without reasoning.
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


class AnswerReader:
    """Told what happens in order: sent, begun, pieces or the whole body, ended or failed. Reads the clock itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events = EventReader()
        self._sent_s = 0.0
        self._done = False
        self._worker: str | None = None
        self._first_s: float | None = None
        self._last_s = 0.0
        self._gaps_s: list[float] = []
        self._events_s: list[float] = []
        self._text: list[str] = []
        self._usage: Usage | None = None
        self._error: tuple[ErrorKind, str] | None = None
        self.begun = False

    def sent(self) -> None:
        """The request leaves now."""
        self._sent_s = self._clock()

    def begin(self, worker: str | None) -> None:
        """Status and headers are here; `worker` is who serves, where a header tells."""
        self.begun = True
        self._worker = worker

    def piece(self, data: bytes) -> None:
        """Some bytes of an event stream."""
        now_s = self._clock()
        for event in self._events.feed(data):
            if event == b"[DONE]":
                self._done = True
            else:
                self._take(event, now_s, streamed=True)

    def stream_ended(self) -> None:
        """The event stream ended by itself."""
        if not self._done:
            self.fail(ErrorKind.TRUNCATED, "the stream ended without [DONE]")

    def whole(self, data: bytes) -> None:
        """An answer that is not a stream."""
        self._take(data, self._clock(), streamed=False)

    def refused(self, status: int, body: bytes) -> None:
        """An answer with a status of 400 or more."""
        self.fail(ErrorKind.HTTP_STATUS, f"{status} {error_text(body)}")

    def fail(self, kind: ErrorKind, detail: str) -> None:
        """Records the first failure; later ones are its consequences."""
        if self._error is None:
            self._error = (kind, detail[:500])

    def broke(self, error: Exception) -> None:
        """The connection failed: before the answer began, or within it."""
        kind = ErrorKind.TRUNCATED if self.begun else ErrorKind.CONNECTION
        self.fail(kind, f"{type(error).__name__}: {error}")

    def answer(self) -> Answer:
        """What came; its end is now."""
        kind, detail = self._error or (None, "")
        first_s, gaps_s = self._first_s, tuple(self._gaps_s)
        if first_s is None and self._events_s:  # tokens without text, as a model without weights makes: time its events
            first_s = self._events_s[0]
            gaps_s = tuple(later - earlier for earlier, later in pairwise(self._events_s[1:]))
        return Answer(
            sent_s=self._sent_s,
            e2e_s=self._clock() - self._sent_s,
            ttft_s=None if first_s is None else first_s - self._sent_s,
            gaps_s=gaps_s,
            text="".join(self._text),
            usage=self._usage,
            worker=self._worker,
            error=kind,
            error_detail=detail,
        )

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
        if streamed and self._first_s is None and chunk.choices:
            self._events_s.append(now_s)
        if streamed and chunk.has_output():
            if self._first_s is None:
                self._first_s = now_s
            else:
                self._gaps_s.append(now_s - self._last_s)
            self._last_s = now_s
