"""What the prefix cache tells a rank: pages stored, removed, cleared, turned into metrics and KV events.

The cache's listener (radix_cache.CacheListener). A page's mark is its block hash when events are published, and only a
number otherwise, so that hashing costs nothing when nobody listens. Called by the engine, made by rank.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

from workers.simulated.kv_events import KvPublisher, block_hashes, event_hash, salt_seed
from workers.simulated.metrics import RankMetrics
from workers.simulated.radix_cache import Mark, Pages


class KvWatcher:
    """One cache's listener. Namespaces are (LoRA adapter, extra_key, cache_salt); only the salt enters a hash."""

    def __init__(self, metrics: RankMetrics, page_size: int, publisher: KvPublisher | None) -> None:
        self._metrics = metrics
        self._page_size = page_size
        self._publisher = publisher

    def stored(self, namespace: Hashable, parent: Mark | None, pages: Pages) -> Sequence[Mark]:
        """Publishes one BlockStored for the run of pages."""
        if self._publisher is None:
            return range(len(pages))
        salt = namespace[2] if isinstance(namespace, tuple) else None
        digests = block_hashes(pages, parent if isinstance(parent, bytes) else salt_seed(salt))
        event = {
            "type": "BlockStored",
            "block_hashes": [event_hash(digest) for digest in digests],
            "parent_block_hash": event_hash(parent) if isinstance(parent, bytes) else None,
            "token_ids": list(pages) if self._page_size == 1 else list(chain.from_iterable(pages)),  # type: ignore[arg-type]
            "block_size": self._page_size,
            "lora_id": None,
            "medium": "GPU",
        }
        if salt is not None:
            event["cache_salt"] = salt
        self._publisher.add(event)
        return digests

    def removed(self, namespace: Hashable, marks: Sequence[Mark]) -> None:
        """Publishes one BlockRemoved and counts what was evicted."""
        self._metrics.evicted_tokens += len(marks) * self._page_size
        if self._publisher is not None:
            hashes = [event_hash(mark) for mark in marks if isinstance(mark, bytes)]
            self._publisher.add({"type": "BlockRemoved", "block_hashes": hashes, "medium": "GPU"})

    def cleared(self) -> None:
        """Publishes AllBlocksCleared."""
        if self._publisher is not None:
            self._publisher.add({"type": "AllBlocksCleared"})
