"""Asks for a key before any route but the model calls, which dispatch guards itself. An ASGI app around another.

Three kinds of routes: open ones for probes, those that belong to model calls and take a client's key, and all the rest
for an admin key. A route that nobody thought of is for admins. Called by app.
"""

from __future__ import annotations

from router.asgi import ASGIApp, Receive, Scope, Send
from router.errors import ForeignPage, InvalidApiKey, RouterError
from router.security.access import Access, without_credentials

OPEN = frozenset({"/health", "/ready", "/ping", "/version"})
CLIENTS = frozenset({
    "/v1/models", "/model_info", "/get_model_info", "/health_generate", "/tokenize", "/v1/tokenize", "/detokenize",
    "/v1/detokenize", "/v1/messages/count_tokens", "/parse_function_call", "/separate_reasoning",
})  # fmt: skip
CLIENTS_BELOW = ("/v1/models/", "/v1/responses/")


class Guard:
    def __init__(self, inner: ASGIApp, access: Access, *, open_metrics: bool) -> None:
        self._inner = inner
        self._access = access
        self._open = OPEN | {"/metrics"} if open_metrics else OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                _check_page(scope)
                if self._access.closed:
                    self._check(scope)
            except RouterError as error:
                await _refuse(error, send)
                return
        if scope["type"] == "http" and self._access.closed:
            scope = {**scope, "headers": without_credentials(scope["headers"])}
        await self._inner(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path = scope["path"]
        if path in self._open:
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if path in CLIENTS or path.startswith(CLIENTS_BELOW):
            self._access.identify(headers)
        else:
            self._access.check_admin(headers, reads=scope["method"] in ("GET", "HEAD"))


def _check_page(scope: Scope) -> None:
    """A page of another site, open in an operator's browser, must change nothing here. Raises ForeignPage."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return
    headers = dict(scope["headers"])
    origin, host = headers.get(b"origin"), headers.get(b"host", b"")
    if origin is not None and origin.partition(b"://")[2] != host:
        raise ForeignPage("A page of another site may not use this route.")


async def _refuse(error: RouterError, send: Send) -> None:
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if isinstance(error, InvalidApiKey):
        headers.append((b"www-authenticate", b'Basic realm="trieway", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
