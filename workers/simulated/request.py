"""What the engine is asked to generate: names of pages and counts of tokens, no text.

`EngineRequest` is the caller's and immutable; what the engine notes about one is in request_state.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain

from workers.simulated.radix_cache import Pages


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """One generation whose length is known in advance; the engine only decides when each token comes out.

    `pages` names every whole page of the prompt and of the answer after it, in order; two prompts share the pages
    before the first whose names differ. It may be longer than needed. All requests of one engine use the same type,
    tuple or array. `max_new_tokens` is the limit that the client set, from which SGLang estimates memory; None means
    `output_tokens`. Of the prompt at most `reusable_tokens` may come from the cache, where log-probabilities are wanted
    of what follows.
    """

    rid: str
    prompt_tokens: int
    output_tokens: int
    pages: Pages
    namespace: Hashable = None
    max_new_tokens: int | None = None
    reusable_tokens: int | None = None

    @staticmethod
    def of_tokens(
        *,
        rid: str,
        prompt: Sequence[int],
        output: Sequence[int],
        page_size: int,
        namespace: Hashable = None,
        max_new_tokens: int | None = None,
        reusable_tokens: int | None = None,
    ) -> EngineRequest:
        """From token ids (below 2^32). Its pages are the ids themselves at page size 1, else tuples of ids."""
        return EngineRequest(
            rid=rid,
            prompt_tokens=len(prompt),
            output_tokens=len(output),
            pages=pages_of_tokens(prompt, output, page_size),
            namespace=namespace,
            max_new_tokens=max_new_tokens,
            reusable_tokens=reusable_tokens,
        )

    @property
    def limit_tokens(self) -> int:
        """The most tokens that the client lets it make."""
        return self.output_tokens if self.max_new_tokens is None else max(self.max_new_tokens, self.output_tokens)


def pages_of_tokens(prompt: Sequence[int], output: Sequence[int], page_size: int) -> Pages:
    """Whole pages of a prompt and its answer: an array of ids at page size 1, else a tuple of tuples of ids."""
    if page_size == 1:
        ids = array("I", prompt)
        ids.extend(array("I", output))
        return ids
    tokens = tuple(chain(prompt, output))
    whole = len(tokens) - len(tokens) % page_size
    return tuple(tokens[start : start + page_size] for start in range(0, whole, page_size))
