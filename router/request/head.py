"""What a model call says before its body, and all that follows from that alone.

A connection keeps the head of its last call: a client that says the same again, but for the length of its body, is
neither parsed (repeat) nor understood anew. Called by inbound, model_call, endpoints and dispatch. Not here: the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.request.client import client_of
from router.request.reply import RawHeaders, spelled
from router.security.access import CREDENTIALS
from router.types import RequestId

HOP_BY_HOP = frozenset(
    name.encode()
    for name in (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
"""Headers that concern one connection only (RFC 9110, 7.6.1); never forwarded in either direction."""
NOT_SENT = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
"""Those of a client that workers never get as they are."""
WAYS = 8
"""So many spellings of the lines to send on are kept: workers that get headers of their own get their own lines."""
MAX_ID = 128
Extra = Sequence[tuple[str, str]]


class Head:
    """`headers` have lower-case names, `target` is path and query as sent. A content-length among the headers is that
    of the first request with this head. `given_id` is the client's own id where it may be used."""

    __slots__ = (
        "_lines", "_texts", "client", "endpoint", "expects", "explains", "given_id", "headers", "keep_alive", "named",
        "target", "version",
    )  # fmt: skip

    def __init__(
        self, endpoint: str, target: bytes, headers: RawHeaders, *, version: str = "1.1", keep_alive: bool = True
    ) -> None:
        self.endpoint = endpoint
        self.target = target
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        named = self.named = dict(headers)
        self.expects = named.get(b"expect", b"").lower() == b"100-continue"
        self.explains = named.get(b"x-trieway-explain") == b"1"
        self.client = client_of(named)
        given = self.text(b"x-request-id")
        self.given_id = RequestId(given) if given and is_sane_id(given) else None
        self._texts: Mapping[str, str] | None = None
        self._lines: dict[tuple[Extra, bool, bool], bytes] = {}

    def text(self, name: bytes) -> str | None:
        """A header's value; the last one's where there are several."""
        value = self.named.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def texts(self) -> Mapping[str, str]:
        """All of them as text."""
        if self._texts is None:
            self._texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}
        return self._texts

    def lines(self, extra: Extra, *, closed: bool, traced: bool) -> bytes:
        """The header lines to send on to a worker with `extra` headers of its own, which count more than the client's.

        When the router is `closed`, what proves to it who the client is goes no further; when the request is `traced`,
        the client's traceparent is replaced by whoever writes ours.
        """
        way = (extra, closed, traced)
        lines = self._lines.get(way)
        if lines is None:
            if len(self._lines) >= WAYS:
                self._lines.clear()
            lines = self._lines[way] = self._spelled(extra, closed=closed, traced=traced)
        return lines

    def _spelled(self, extra: Extra, *, closed: bool, traced: bool) -> bytes:
        own = extra_headers(extra)
        dropped = NOT_SENT.union(connection_options(self.headers), [name for name, _ in own])
        if closed:
            dropped |= CREDENTIALS
        if traced:
            dropped |= {b"traceparent"}
        return spelled([*(each for each in self.headers if each[0] not in dropped), *own])


def connection_options(headers: RawHeaders) -> frozenset[bytes]:
    """Header names that Connection headers declare to concern one connection only."""
    listed = [value for name, value in headers if name == b"connection"]
    return frozenset(option.strip().lower() for value in listed for option in value.split(b","))


def extra_headers(extra: Extra) -> RawHeaders:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in extra]


def is_sane_id(given: str) -> bool:
    """Whether a client's own id may be used."""
    return len(given) <= MAX_ID and given.isascii() and given.isprintable()
