"""Who gets which frame, and what happens when somebody is too slow. Pure: bytes in, bytes out. Called by parent.

Each child has an outbox. Frames of events that would make it longer than its bound are dropped, oldest first; the child
is then told of the gap, and asks the others what is true now. Messages are never dropped.
"""

from __future__ import annotations

from collections import deque

from router.processes.frame import ALL, EVENTS, GAP, PARENT, pack

OUTBOX_BYTES = 32 * 2**20
"""Some seconds of a busy router's events: a child that is behind by more than that had better look afresh."""


class Outbox:
    """Frames on their way to one child. `dropped` counts frames of events that it never got."""

    def __init__(self, bound_bytes: int = OUTBOX_BYTES) -> None:
        self.dropped = 0
        self._bound_bytes = bound_bytes
        self._frames: deque[tuple[bool, bytes]] = deque()
        self._bytes = 0
        self._half: memoryview | None = None
        self._gap = False

    def __bool__(self) -> bool:
        return self._half is not None or bool(self._frames)

    def put(self, frame: bytes, *, droppable: bool) -> None:
        """Append a frame; old ones go if there are too many bytes."""
        self._frames.append((droppable, frame))
        self._bytes += len(frame)
        if self._bytes > self._bound_bytes:
            self._shorten()

    def next(self) -> memoryview | None:
        """What is to be written now; None when there is nothing."""
        if self._half is None and self._frames:
            joined = b"".join(frame for _, frame in self._frames)
            self._frames.clear()
            self._bytes = 0
            self._gap = False
            self._half = memoryview(joined)
        return self._half

    def written(self, count: int) -> None:
        """So many bytes of `next` are gone."""
        assert self._half is not None
        self._half = self._half[count:] or None

    def _shorten(self) -> None:
        kept: deque[tuple[bool, bytes]] = deque()
        excess = self._bytes - self._bound_bytes // 2  # by half, so that the next frame does not come here again
        for droppable, frame in self._frames:
            if droppable and excess > 0:
                excess -= len(frame)
                self._bytes -= len(frame)
                self.dropped += 1
                self._gap_before(kept)
            else:
                kept.append((droppable, frame))
        self._frames = kept

    def _gap_before(self, kept: deque[tuple[bool, bytes]]) -> None:
        if not self._gap:
            self._gap = True
            notice = pack(PARENT, ALL, GAP, b"")
            kept.append((False, notice))
            self._bytes += len(notice)


class Relay:
    """Outboxes by the children's numbers."""

    def __init__(self, bound_bytes: int = OUTBOX_BYTES) -> None:
        self._bound_bytes = bound_bytes
        self.outboxes: dict[int, Outbox] = {}

    def join(self, number: int) -> Outbox:
        """A child is there."""
        box = self.outboxes[number] = Outbox(self._bound_bytes)
        return box

    def leave(self, number: int) -> None:
        """It is gone, and so is what was on its way."""
        self.outboxes.pop(number, None)

    def hand_on(self, source: int, target: int, kind: int, payload: bytes) -> None:
        """Put one frame where it belongs; what is for a child that is gone is lost."""
        frame = pack(source, target, kind, payload)
        if target != ALL:
            box = self.outboxes.get(target)
            if box is not None:
                box.put(frame, droppable=kind == EVENTS)
            return
        for number, each in self.outboxes.items():
            if number != source:
                each.put(frame, droppable=kind == EVENTS)
