"""One chat call over aiohttp, stamped on the monotonic clock.

`ChatClient.call` never raises for what a server does: every failure is classified in the `Answer`. Called by
comparison.py. Not here: reading an answer (answer.py), when to send (drive.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import aiohttp
import msgspec

from loadtests.answer import Answer, AnswerReader
from loadtests.clock import Clock
from loadtests.load_request import CHAT_PATH, WORKER_HEADER, chat_headers
from loadtests.measures import ErrorKind


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
        self._headers = headers or {}
        self._clock = clock

    async def call(self, body: Mapping[str, object], *, session_id: str | None = None) -> Answer:
        """One call to its end, streamed when the body says so."""
        reader = AnswerReader(self._clock)
        headers = {**chat_headers(session_id), **self._headers}
        data = msgspec.json.encode(body)
        reader.sent()
        try:
            async with self._session.post(self._url, data=data, headers=headers) as response:
                await _read(response, reader)
        except TimeoutError:
            reader.fail(ErrorKind.TIMEOUT, "no end within the client's timeout")
        except (aiohttp.ClientError, OSError) as error:
            reader.broke(error)
        return reader.answer()


async def _read(response: aiohttp.ClientResponse, reader: AnswerReader) -> None:
    reader.begin(response.headers.get(WORKER_HEADER))
    if response.status >= 400:
        reader.refused(response.status, await response.read())
    elif response.content_type == "text/event-stream":
        async for piece in response.content.iter_any():
            reader.piece(piece)
        reader.stream_ended()
    else:
        reader.whole(await response.read())


def client_session(*, timeout_s: float, limit: int = 0) -> aiohttp.ClientSession:
    """A session that keeps connections alive; at most `limit` at once (0: as many as calls are in flight)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, 10.0)),
        read_bufsize=2**20,
    )
