"""A worker's answer to the client, with its times and its usage read in passing. Called by request.dispatch.

Server-sent events are handed on whole: the tail of an event waits for its end, so that a worker which breaks off
leaves no half event before our error event. The client's answer starts with the first event, so a worker that breaks
off before it can still be replaced. Not here: retries, what to do about a broken stream (dispatch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.clock import Clock
from router.errors import StreamCut, WorkerError, WorkerHungUp
from router.request.relayed import Relayed
from router.request.reply import RawHeaders, Reply
from router.request.usage import Usage, is_usage_chunk, response_id_of, usage_of_body, usage_of_events
from router.request.worker_connection import WorkerConnection

WHOLE_BODY_BYTES = 4 * 2**20
"""Answers up to this size that are not streams are read whole before the client's starts, so they can be retried."""
MAX_EVENT_BYTES = 16 * 2**20
"""An event longer than this is handed on unframed rather than held back."""
USAGE_EVENTS: Final = 4
"""Usage stands in the last or second last event before the end mark; that many pieces are kept to look for it."""


Began = Callable[[float], None]


RESPONSES = "/v1/responses"
LF: Final = 10
NOT_YET: Final = b"\0"
"""No event begins so."""
_CHOICE: Final = b'"choices":[{'
_USAGE: Final = b'"usage":{'
"""How a chunk with usage is recognised at a glance; SGLang writes JSON without spaces."""


class EventStream:
    """Frames and accounts one stream of server-sent events.

    With `hide_usage` the chunk that tells usage is read and kept from the client, who did not ask for it. Such a chunk
    has no choices, so an event that begins like one before it, up to its first choice, is not searched for usage.
    """

    def __init__(self, endpoint: str, *, hide_usage: bool = False) -> None:
        self._endpoint = endpoint
        self._hide_usage = hide_usage
        self._hidden = b""
        self._held = b""
        self._head = b""
        self._recent = [b""] * USAGE_EVENTS  # the last pieces, each in the place of the fourth before it
        self._pieces = 0
        self._shown = NOT_YET if hide_usage else b""
        self.events = 0

    def feed(self, piece: bytes) -> bytes:
        """What may be sent now: all events that are complete. b"" when none is."""
        if (
            self._head
            and not self._held
            and piece.startswith(self._shown)
            and piece.endswith(b"\n\n")
            and LF not in piece[:-2]
        ):  # one event of one line, like those before
            self.events += 1
            self._keep(piece)
            return piece
        return self._feed_any(piece)

    @property
    def ended(self) -> bool:
        """Whether its last event was there."""
        marks = END_MARKS.get(self._endpoint)
        if marks is not None:
            return any(piece.find(mark) >= 0 for piece in self._recent for mark in marks)
        last = self._recent[(self._pieces - 1) % USAGE_EVENTS]
        return last.endswith((b"data: [DONE]\n\n", b"data: [DONE]\r\n\r\n"))

    def response_id(self) -> str | None:
        return response_id_of(self._head) if self._endpoint == RESPONSES else None

    def usage(self) -> Usage:
        oldest = self._pieces % USAGE_EVENTS
        return usage_of_events((self._head, *self._recent[oldest:], *self._recent[:oldest], self._hidden))

    def _keep(self, piece: bytes) -> None:
        self._recent[self._pieces % USAGE_EVENTS] = piece
        self._pieces += 1

    def _feed_any(self, piece: bytes) -> bytes:
        if self._held or not piece.endswith(b"\n\n"):
            piece = self._complete(piece)
        if self._hide_usage and piece.find(_USAGE) >= 0:
            piece = self._without_usage(piece)
        if piece:
            self.events += piece.count(b"\n\n") or piece.count(b"\r\n\r\n")
            self._keep(piece)
            if not self._head:
                self._head = piece
            if self._hide_usage:
                begin = piece.find(_CHOICE)
                self._shown = piece[: begin + len(_CHOICE)] if begin >= 0 else NOT_YET
        return piece

    def _without_usage(self, data: bytes) -> bytes:
        events = data.split(b"\n\n")
        shown = [event for event in events if _USAGE not in event or not is_usage_chunk(event)]
        if len(shown) == len(events):
            return data
        self._hidden = b"\n\n".join(event for event in events if _USAGE in event and is_usage_chunk(event))
        return b"\n\n".join(shown)

    def _complete(self, piece: bytes) -> bytes:
        """The events that this piece completes; what follows them is held back."""
        data = self._held + piece
        cut = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if cut < 4:
            cut = len(data) if len(data) > MAX_EVENT_BYTES else 0
        self._held = data[cut:]
        return data[:cut]


END_MARKS: dict[str, tuple[bytes, ...]] = {
    "/v1/messages": (b"event: message_stop", b"event: error"),
    "/v1/responses": (b"event: response.completed", b"event: response.failed", b"event: response.incomplete"),
}
"""How the last event of a stream is recognised; `data: [DONE]` at its very end where not listed. Text that a model
writes cannot imitate them: inside JSON a line break is escaped."""


async def relay(
    answer: WorkerConnection,
    reply: Reply,
    endpoint: str,
    own: RawHeaders,
    clock: Clock,
    began: Began,
    *,
    hide_usage: bool = False,
) -> Relayed:
    """Hand the answer to the client; `began` is told the time of the first byte, just after it went out.

    `own` are headers of ours. `hide_usage` keeps the usage chunk of a stream from the client, who did not ask for it.

    Raises WorkerError while `reply.started` is False; afterwards StreamCut.
    """
    if answer.streams:
        return await _relay_events(answer, reply, EventStream(endpoint, hide_usage=hide_usage), own, clock, began)
    length = answer.length_bytes
    if length is None or length <= WHOLE_BODY_BYTES:
        return await _relay_whole(answer, reply, endpoint, own, clock, began)
    return await _relay_pieces(answer, reply, own, clock, began)


async def _relay_whole(
    answer: WorkerConnection, reply: Reply, endpoint: str, own: RawHeaders, clock: Clock, began: Began
) -> Relayed:
    body = await answer.read()
    now_s = clock()
    reply.answer(answer.head, own, body)
    began(now_s)
    made = response_id_of(body) if endpoint == RESPONSES else None
    return Relayed(
        status=answer.status, first_s=now_s, last_s=now_s, events=0, usage=usage_of_body(body), response_id=made
    )


async def _relay_pieces(
    answer: WorkerConnection, reply: Reply, own: RawHeaders, clock: Clock, began: Began
) -> Relayed:
    first_s: float | None = None
    while piece := await _piece(answer, reply):
        first = first_s is None
        if first_s is None:
            first_s = clock()
            reply.start(answer.head, own, answer.length_bytes)
        full = reply.write(piece)
        if first:
            began(first_s)
        if full:
            await reply.drained()
    reply.finish()
    return Relayed(status=answer.status, first_s=first_s, last_s=clock(), events=0, usage=Usage())


class _Passage:
    """One stream on its way to the client, and when its first and its last event came."""

    def __init__(
        self, answer: WorkerConnection, reply: Reply, stream: EventStream, own: RawHeaders, clock: Clock, began: Began
    ) -> None:
        assert answer.worker is not None
        self._answer = answer
        self._worker = answer.worker
        self._reply = reply
        self._write = reply.write
        self._stream = stream
        self._own = own
        self._clock = clock
        self._began = began
        self._last_s = 0.0
        self.first_s: float | None = None

    @property
    def last_s(self) -> float | None:
        return None if self.first_s is None else self._last_s

    def take(self, piece: bytes, chunk: bytes | None) -> bool:
        """A Sink of worker_connection."""
        ready = self._stream.feed(piece)
        if not ready:
            return False
        self._last_s = self._worker.heard_s = self._clock()
        if self.first_s is None:
            return self._begin(ready)
        return self._write(ready, chunk if ready is piece else None)

    def _begin(self, ready: bytes) -> bool:
        now_s = self.first_s = self._last_s
        self._reply.start(self._answer.head, self._own, None)
        full = self._write(ready)
        self._began(now_s)
        return full


async def _relay_events(
    answer: WorkerConnection, reply: Reply, stream: EventStream, own: RawHeaders, clock: Clock, began: Began
) -> Relayed:
    passage = _Passage(answer, reply, stream, own, clock, began)
    try:
        await answer.pour(passage.take, reply.drained)
    except WorkerError as error:
        raise _cut(error, reply) from error.__cause__
    if not stream.ended:
        kind = StreamCut if reply.started else WorkerHungUp
        raise kind("The worker ended the stream before it was complete. Send the request again.")
    reply.finish()
    return Relayed(
        status=answer.status,
        first_s=passage.first_s,
        last_s=passage.last_s,
        events=stream.events,
        usage=stream.usage(),
        response_id=stream.response_id(),
    )


async def _piece(answer: WorkerConnection, reply: Reply) -> bytes:
    try:
        return await answer.piece()
    except WorkerError as error:
        raise _cut(error, reply) from error.__cause__


def _cut(error: WorkerError, reply: Reply) -> WorkerError:
    """The error itself while the request can be tried elsewhere, else that the stream is cut."""
    if not reply.started:
        return error
    return StreamCut(f"{error.message} The answer up to here is incomplete. Send the request again.")
