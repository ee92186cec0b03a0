"""One generation from arrival to end: what was planned, how far it has come, who listens.

Mutable and owned by the rank that runs it (rank.py): only it may change `produced`, `cached_tokens` and
`finish_reason`. API modules read it, in `listener` or after `done`. Not here: formats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workers.simulated.errors import Aborted
from workers.simulated.tokenizer import BYTES_PER_TOKEN
from workers.simulated.writer import Plan

Listener = Callable[["Generation"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which log-probabilities a request wants: of prompt tokens from `start` on (None: of none), of the `top` most
    likely tokens at every place, and of `token_ids` there. `text`: whether each carries its token's text.
    """

    start: int | None = None
    top: int = 0
    token_ids: tuple[int, ...] | None = None
    text: bool = False


class Generation:
    """One sequence that the engine produces. Times are seconds of the monotonic clock."""

    __slots__ = (
        "arrived_s",
        "cached_tokens",
        "done",
        "finish_reason",
        "finished_s",
        "first_token_s",
        "last_token_s",
        "limit_tokens",
        "listener",
        "namespace",
        "on_end",
        "plan",
        "produced",
        "prompt",
        "queue_s",
        "rank",
        "ready_s",
        "retractions",
        "rid",
        "wanted",
    )

    def __init__(
        self,
        *,
        rid: str,
        prompt: Sequence[int],
        plan: Plan,
        namespace: tuple[str | None, ...],
        rank: int,
        limit_tokens: int,
        arrived_s: float,
        listener: Listener | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self.rid = rid
        self.prompt = prompt
        self.plan = plan
        self.namespace = namespace
        self.rank = rank
        self.limit_tokens = limit_tokens
        self.arrived_s = arrived_s
        self.ready_s = arrived_s
        self.listener = listener
        self.wanted = wanted
        self.on_end: Listener | None = None
        self.produced = 0
        self.cached_tokens = 0
        self.retractions = 0
        self.queue_s = 0.0
        self.first_token_s: float | None = None
        self.finish_reason: dict[str, Any] | None = None
        self.last_token_s: float | None = None
        self.finished_s: float | None = None
        self.done: asyncio.Event = asyncio.Event()

    @property
    def text_end(self) -> int:
        """How many characters of the planned text have been said."""
        said = self.produced * BYTES_PER_TOKEN
        return min(said, len(self.plan.text))

    @property
    def text(self) -> str:
        """What has been said so far."""
        return self.plan.text[: self.text_end]

    def finish(self, reason: dict[str, Any], now_s: float) -> None:
        """For the rank: the end. Tells the listener and wakes those who wait; a second end is ignored."""
        if self.finish_reason is not None:
            return
        self.finish_reason = reason
        self.finished_s = now_s
        if self.on_end is not None:
            self.on_end(self)
        if self.listener is not None:
            self.listener(self)
        self.done.set()

    async def result(self) -> Generation:
        """Waits for the end. Raises Aborted when the server, not the client, refused to go on."""
        await self.done.wait()
        reason = self.finish_reason
        if reason is not None and reason["type"] == "abort" and reason.get("status_code"):
            raise Aborted(str(reason.get("message", "Generation aborted.")))
        return self
