"""Requests of a trace without text, as chat calls with text: equal blocks become equal text, other blocks differ.

A block of 512 tokens is 2,048 bytes of prose that its id and the seed decide, so prompts share exactly the blocks
that the trace says. Texts are made when a call is about to be sent; a long trace's would not fit into memory.
"""

from __future__ import annotations

from functools import lru_cache

from loadtests.load_request import LoadRequest
from loadtests.traces import BLOCK_TOKENS, BlockRequest
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import BYTES_PER_TOKEN, prose

_KEPT_BLOCKS = 16_384  # 32 MB of text


class BlockTexts:
    """Makes the text of any request of one trace. Not shared between seeds."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._text = lru_cache(maxsize=_KEPT_BLOCKS)(self._make)

    def load_request(self, request: BlockRequest, session_id: str) -> LoadRequest:
        """The call for `request`. Without block ids its text is the session's and turn's own."""
        size = request.prompt_tokens * BYTES_PER_TOKEN
        if request.blocks:
            text = "".join(map(self._text, request.blocks))[:size]
        else:
            text = prose(rng_of(self._seed, session_id, request.turn), request.prompt_tokens)
        return LoadRequest(
            session_id=session_id,
            turn=request.turn,
            arrival_s=request.arrival_s,
            messages=[{"role": "user", "content": text}],
            max_tokens=max(1, request.output_tokens),
        )

    def _make(self, block: int) -> str:
        return prose(rng_of(self._seed, "block", block), BLOCK_TOKENS)
