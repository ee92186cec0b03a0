"""One chat call over geventhttpclient, which is what Locust users can wait on; read and stamped as everywhere else.

Called by users.py. Not here: reading an answer (answer.py), Locust's statistics (locust_metrics.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import gevent  # type: ignore[import-untyped]  # has no stubs of its own
import msgspec
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPSocketPoolResponse

from loadtests.answer import Answer, AnswerReader
from loadtests.clock import Clock
from loadtests.load_request import CHAT_PATH, WORKER_HEADER, chat_headers
from loadtests.measures import ErrorKind


class GeventChatClient:
    """Calls one endpoint, one call at a time unless `concurrency` says more; connections are kept alive."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        concurrency: int = 1,
        clock: Clock = time.monotonic,
    ) -> None:
        """Raises ValueError when `base_url` is no URL."""
        root = base_url.rstrip("/").removesuffix("/v1")
        if not root.startswith(("http://", "https://")):
            raise ValueError(f"{base_url!r} is not a URL like http://127.0.0.1:8080")
        self._http = HTTPClient.from_url(
            root + CHAT_PATH, concurrency=concurrency, connection_timeout=10.0, network_timeout=timeout_s
        )
        self._path = CHAT_PATH if root.count("/") == 2 else "/" + root.split("/", 3)[3] + CHAT_PATH
        self._timeout_s = timeout_s
        self._headers = headers or {}
        self._clock = clock

    def call(self, body: Mapping[str, object], *, session_id: str | None = None) -> Answer:
        """One call to its end, streamed when the body says so. Never raises for what a server does."""
        reader = AnswerReader(self._clock)
        data = msgspec.json.encode(body)
        reader.sent()
        try:
            with gevent.Timeout(self._timeout_s, TimeoutError):
                response = self._http.post(self._path, data, headers={**chat_headers(session_id), **self._headers})
                with response:
                    _read(response, reader)
        except TimeoutError:
            reader.fail(ErrorKind.TIMEOUT, "no end within the client's timeout")
        except (OSError, HTTPParseError) as error:
            reader.broke(error)
        return reader.answer()

    def close(self) -> None:
        """Closes idle connections."""
        self._http.close()


def _read(response: HTTPSocketPoolResponse, reader: AnswerReader) -> None:
    worker = response.get(WORKER_HEADER)
    reader.begin(worker if isinstance(worker, str) else None)
    kind = response.get("content-type")
    if response.status_code >= 400:
        reader.refused(response.status_code, response.read())
    elif isinstance(kind, str) and kind.startswith("text/event-stream"):
        # By line, because read(n) waits for n bytes, which would hold back the first event.
        while line := response.readline(b"\n"):
            reader.piece(line)
        reader.stream_ended()
    else:
        reader.whole(response.read())
