"""Server-sent events: bytes as they come in, the data of whole events out.

Framing only, as far as the OpenAI API uses it (data lines; comments and other fields are skipped). Called by
stream_client.py. Not here: what the data means.
"""

from __future__ import annotations


class EventReader:
    """Feed it pieces of a stream; it keeps the tail of an unfinished event."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of each event that `piece` completes, in order."""
        text = (self._tail + piece).replace(b"\r\n", b"\n")
        if text.endswith(b"\r"):  # its line feed may come with the next piece
            text, kept = text[:-1], b"\r"
        else:
            kept = b""
        *events, tail = text.split(b"\n\n")
        self._tail = tail + kept
        return [data for event in events if (data := _data_of(event)) is not None]


def _data_of(event: bytes) -> bytes | None:
    if event.startswith(b"data:") and b"\n" not in event:  # nearly all of them
        return event[5:].strip()
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
