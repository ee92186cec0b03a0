"""The match that counts on each worker: what its own KV events say, else what the policy's index estimates.

Pure. Called by policies in `select`.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.prefix.block_sizes import units_until
from router.records import RoutingRequest
from router.types import Workers


def match_tokens(request: RoutingRequest, workers: Workers, blocks: Sequence[int]) -> list[float]:
    """Tokens matched on each of `workers`, in their order; `blocks` are those that the policy's index found there."""
    size, known = request.key.unit_tokens, request.known_match_tokens
    if known is None:
        return [units_until(found) * size for found in blocks]
    return [
        float(known.get(worker.id, units_until(found) * size)) for worker, found in zip(workers, blocks, strict=True)
    ]
