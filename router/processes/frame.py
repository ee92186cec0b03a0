"""What travels between the parent and a child: frames of a head (length, from, to, kind) and bytes the parent ignores.

Pure. Called by relay and bus. Not here: what the bytes mean (wire, bus), sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEAD = struct.Struct("<IHHB")
PARENT = 0xFFFF
"""The parent's own number."""
ALL = 0xFFFE
"""As a destination: every other child."""
MAX_BYTES = 2**31
"""A head that says more than this is not a head."""

EVENTS = 1
"""What happened: may be dropped when the other side is too slow, which it is then told."""
MESSAGE = 2
"""A question, an answer, a command: never dropped."""
PEERS = 3
"""From the parent: who is there and who leads."""
GAP = 4
"""From the parent: frames of events were dropped."""
READY = 5
"""To the parent: this child serves."""
HELLO = 6
"""From the parent, first of all: which child this is, and its configuration."""


def pack(source: int, target: int, kind: int, payload: bytes) -> bytes:
    """One frame."""
    return HEAD.pack(len(payload), source, target, kind) + payload


class Frames:
    """Cuts a stream of bytes into frames. Raises ValueError for what can be no frame."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """(source, target, kind, payload) of every frame that is complete with `data`."""
        rest = self._rest
        rest += data
        start, size = 0, len(rest)
        try:
            while size - start >= HEAD.size:
                length, source, target, kind = HEAD.unpack_from(rest, start)
                if length > MAX_BYTES:
                    raise ValueError(f"a frame of {length} bytes")
                end = start + HEAD.size + length
                if end > size:
                    break
                payload = bytes(rest[start + HEAD.size : end])
                start = end
                yield source, target, kind, payload
        finally:
            del rest[:start]
