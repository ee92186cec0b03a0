"""Control routes of several processes: whichever a connection landed on, the leader answers for the router as a whole.

An ASGI app around the control routes, inside the guard, which has checked keys where the request came in. Calls that
change something are answered when all processes have applied it. Called by app. Not here: what routes do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from router.asgi import ASGIApp, Receive, Scope, Send, read_body
from router.errors import BodyTooLarge, ProcessGone, RouterError
from router.processes.bus import Bus
from router.processes.replica import Replica

LED = ("/workers", "/queue", "/metrics", "/experiment", "/explain", "/dashboard/data")
"""Routes, and what is below them, that only the leader can answer; all others every process can."""
FRESH = ("/queue", "/metrics", "/dashboard/data")
"""What each process counts for itself is asked for before these are answered."""
EXPLAIN = "/explain/"
MAX_BODY_BYTES = 2**20
ANSWER_S = 30.0
READS = ("GET", "HEAD", "OPTIONS")


class Front:
    """Answers here if this process leads, else asks the one that does."""

    def __init__(self, inner: ASGIApp, replica: Replica) -> None:
        self._inner = inner
        self._replica = replica
        self._bus: Bus = replica.bus
        self._bus.answers["http"] = self._asked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_led(scope["path"]):
            await self._inner(scope, receive, send)
            return
        try:
            told = await read_body(receive, MAX_BODY_BYTES, _too_large)
            if told is None:
                return  # the client left while sending
            status, headers, body = await self._answer(scope, told)
        except RouterError as error:
            status, headers, body = error.status, [(b"content-type", b"application/json")], error.body()
        headers = [each for each in headers if each[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        question = (scope["method"], scope["path"], scope["raw_path"], scope["query_string"], scope["headers"], body)
        for last in (False, True):
            if self._replica.leads:
                return await self._here(*question)
            try:
                found = await self._bus.ask(self._bus.leader, "http", question, timeout_s=ANSWER_S)
            except ProcessGone:
                if last or scope["method"] not in READS:
                    raise
                await asyncio.sleep(0.05)  # until the parent has named another leader
            else:
                return found[0], [(name, value) for name, value in found[1]], found[2]
        raise AssertionError("a question is answered or fails")

    async def _asked(self, source: int, question: Any) -> Any:
        """Another process's request."""
        if not self._replica.leads:
            raise ProcessGone("does not lead", retry_after_s=1)
        return await self._here(*question)

    async def _here(
        self, method: str, path: str, raw_path: bytes, query: bytes, headers: list[Any], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name, value) for name, value in headers],
            "client": None,
            "server": None,
        }
        if path in FRESH:
            await self._replica.refresh()
        if path == "/dashboard/data":
            await self._replica.borrow()
        elif path.startswith(EXPLAIN):
            await self._replica.borrow(path.removeprefix(EXPLAIN))
        told = [{"type": "http.request", "body": body, "more_body": False}]
        status, answered, pieces = 500, [], []

        async def receive() -> Any:
            if told:
                return told.pop()
            await asyncio.Event().wait()  # nobody leaves
            return None

        async def send(message: Any) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], list(message.get("headers", ()))
            else:
                pieces.append(message.get("body", b""))

        await self._inner(scope, receive, send)
        if method not in READS:
            await self._replica.settle()
        return status, answered, b"".join(pieces)


def _is_led(path: str) -> bool:
    return any(path == each or path.startswith(each + "/") for each in LED)


def _too_large() -> RouterError:
    return BodyTooLarge(f"The body is over the limit of {MAX_BODY_BYTES:,} bytes.")
