"""SGLang's own page hashes of a prompt's token ids, as its KV events name blocks. Pure apart from a bounded memory.

A page's digest is SHA-256 over the digest before it and the page's ids as 32-bit little-endian integers; a salted
prompt starts from a digest of its salt, any other from nothing. Events carry a digest's first eight bytes as a signed
integer (read in SGLang 0.5.21; an extra_key does not enter). Called by request.exact and fleet.kv_events.

Pages are small (one token by default), so only *marks* are kept: blocks whose hash is divisible by a step, one in
about MARK_TOKENS tokens. Both sides choose them by the hash alone, without knowing a block's place in its prompt.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from threading import Lock

from xxhash import xxh3_64_intdigest

MARK_TOKENS = 32
"""Mean distance of marks where pages are smaller; what a match is then short of the truth, on average."""
CHUNK_TOKENS = 256
SALT_PREFIX = b"sglang-cache-salt-v1\0"

Mark = tuple[int, int]
"""(tokens up to the end of the block, its hash in events)."""


def mark_step(page_tokens: int) -> int:
    """A block is a mark when its hash is divisible by this."""
    return max(1, MARK_TOKENS // page_tokens)


def marks_among(hashes: Iterable[int], page_tokens: int) -> list[int]:
    """Those of the block hashes of an event that are marks."""
    step = mark_step(page_tokens)
    return list(hashes) if step == 1 else [each for each in hashes if each % step == 0]


def page_hashes(tokens: Sequence[int], page_tokens: int, salt: str | None = None) -> list[int]:
    """Event hashes of all full pages. Raises OverflowError for an id that is no unsigned 32-bit integer."""
    return _hashes(array("I", tokens).tobytes(), page_tokens * 4, _seed(salt))[0]


def _seed(salt: str | None) -> bytes:
    return b"" if salt is None else sha256(SALT_PREFIX + salt.encode()).digest()


def _hashes(data: bytes, page_bytes: int, digest: bytes) -> tuple[list[int], bytes]:
    """Event hashes of the full pages in `data`, and the digest after the last."""
    found: list[int] = []
    for start in range(0, len(data) - page_bytes + 1, page_bytes):
        digest = sha256(digest + data[start : start + page_bytes]).digest()
        found.append(int.from_bytes(digest[:8], "big", signed=True))
    return found, digest


class PageChains:
    """Marks of prompts, remembered in chunks: the next turn of a conversation hashes only what is new.

    At most `capacity_chunks` chunks, the least recently used go first; about 300 bytes each. Safe to call from
    several threads. `pause` is called after each chunk that had to be hashed (0.3 ms for pages of one token), for a
    thread to let others run.
    """

    def __init__(self, capacity_chunks: int = 65_536, pause: Callable[[], None] = lambda: None) -> None:
        self._capacity_chunks = capacity_chunks
        self._pause = pause
        self._chunks: OrderedDict[int, tuple[bytes, tuple[int, ...]]] = OrderedDict()
        self._lock = Lock()

    def marks(self, tokens: Sequence[int], page_tokens: int, salt: str | None = None) -> list[Mark]:
        """The marks among the prompt's full pages, first page first. Raises OverflowError as `page_hashes` does."""
        data = array("I", tokens).tobytes()
        page_bytes = page_tokens * 4
        chunk_bytes = max(1, CHUNK_TOKENS // page_tokens) * page_bytes
        digest = _seed(salt)
        key = xxh3_64_intdigest(b"%d:" % page_tokens + digest)
        found: list[Mark] = []
        for start in range(0, len(data), chunk_bytes):
            chunk = data[start : start + chunk_bytes]
            key = xxh3_64_intdigest(chunk, key)
            digest, flat = self._chunk(key, chunk, page_bytes, digest)
            base = start // 4
            found.extend((base + offset, value) for offset, value in zip(flat[::2], flat[1::2], strict=True))
        return found

    def _chunk(self, key: int, chunk: bytes, page_bytes: int, before: bytes) -> tuple[bytes, tuple[int, ...]]:
        """The digest after the chunk, and its marks flat: offset in tokens, hash, offset, hash, ..."""
        with self._lock:
            known = self._chunks.get(key)
            if known is not None:
                self._chunks.move_to_end(key)
                return known
        step = mark_step(page_bytes // 4)
        hashes, digest = _hashes(chunk, page_bytes, before)
        flat: list[int] = []
        for page, value in enumerate(hashes):
            if value % step == 0:
                flat += ((page + 1) * page_bytes // 4, value)
        made = digest, tuple(flat)
        with self._lock:
            self._chunks[key] = made
            if len(self._chunks) > self._capacity_chunks:
                self._chunks.popitem(last=False)
        self._pause()
        return made
