"""What the engine knows of one request between `submit` and its end. Mutable; changed by the engine's parts only."""

from __future__ import annotations

from workers.simulated.radix_cache import Look, Node
from workers.simulated.request import EngineRequest


class RequestState:
    """Progress and KV memory of one request.

    KV of a running request, page size 4, 11 tokens computed, 8 of them in the tree:

        |  tree, locked  | own pages |
        [0 1 2 3][4 5 6 7][8 9 A .]
                         ^ tree_pages = 2, kv_tokens = 11

    `produced` counts output tokens; the newest has no KV yet. While the request is in the decode batch, `produced` and
    `kv_tokens` are as of `joined_at`, the batch's count of iterations (DecodeBatch.settle brings them up to date).
    """

    __slots__ = (
        "cached_tokens", "finish_at", "joined_at", "kv_tokens", "node", "produced", "request", "seen", "tree_pages",
    )  # fmt: skip

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.produced = 0
        self.kv_tokens = 0
        self.tree_pages = 0
        self.node: Node | None = None
        self.cached_tokens: int | None = None  # as reported: what the first admission found
        self.seen: Look | None = None  # of the prompt in the cache, while it waits
        self.joined_at = 0
        self.finish_at = 0

    @property
    def fill_tokens(self) -> int:
        """Tokens that must have KV before the next token can be made."""
        return self.request.prompt_tokens + self.produced
