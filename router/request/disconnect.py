"""Notices a client that hangs up while its request is being served, and cancels the work at once.

Called by request.endpoints around dispatch. The one task it starts ends inside its `async with`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.asgi import Receive

LEFT = "the client left"
"""The message of the cancellation, by which dispatch tells it from the server's own at a stop."""


@asynccontextmanager
async def cancelled_when_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Cancels the body when `receive` reports a disconnect; the cancellation ends here and is not passed on.

    Any other cancellation passes through.
    """
    body = asyncio.current_task()
    assert body is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        body.cancel(LEFT)

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or body.uncancel() > 0:
            raise
    finally:
        watcher.cancel()
