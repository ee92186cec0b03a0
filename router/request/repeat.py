"""Recognises a message that begins as the last one on its connection did, but for the digits of its content-length.

What a parser has read once it need not read again: the same bytes at the same point mean the same. Only heads that came
in one piece count, and nothing but their length may say where the body ends. Called by inbound for requests and by
worker_connection for answers. Not here: what the head says.
"""

from __future__ import annotations

MAX_DIGITS = 15
_LENGTH = b"\r\ncontent-length:"


class Repeat:
    """A head on the wire: what stands before and after the digits of its length."""

    __slots__ = ("_after", "_after_size", "_before", "_before_size", "_reach")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._before_size = len(before)
        self._after_size = len(after)
        self._reach = len(before) + len(after) + MAX_DIGITS

    @classmethod
    def of(cls, data: bytes) -> Repeat | None:
        """The head of `data`, in which a parser has found exactly one message, or the beginning of one with all of its
        head; None where that does not tell the body's length once, in plain digits, or tells more of where it ends.
        """
        end = data.find(b"\r\n\r\n") + 4
        folded = data[:end].lower()
        at = folded.find(_LENGTH)
        if at < 0 or folded.find(_LENGTH, at + 1) >= 0 or b"\r\ntransfer-encoding" in folded:
            return None
        start = at + len(_LENGTH)
        start += len(folded[start:]) - len(folded[start:].lstrip(b" \t"))
        stop = folded.find(b"\r\n", start)
        if not folded[start:stop].isdigit():
            return None
        return cls(data[:start], data[stop:end])

    def body(self, data: bytes) -> bytes | None:
        """The body, when `data` is exactly one message with this head; None when it is anything else."""
        begin = self.begin(data)
        return data[begin:] if begin and len(data) - begin == self.length_bytes(data, begin) else None

    def begin(self, data: bytes) -> int:
        """Where the body begins, when `data` begins with this head; 0 when it does not, or has not all of it."""
        if not data.startswith(self._before):
            return 0
        start = self._before_size
        cut = data.find(self._after, start, self._reach)
        return cut + self._after_size if cut >= 0 and data[start:cut].isdigit() else 0

    def length_bytes(self, data: bytes, begin: int) -> int:
        """How long the body is that begins there, as the head says."""
        return int(data[self._before_size : begin - self._after_size])
