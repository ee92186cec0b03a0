"""Frames: a stream of bytes gives the same frames however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.processes.frame import HEAD, MAX_BYTES, Frames, pack

numbers = st.integers(0, 0xFFFF)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 255), st.binary(max_size=40)), max_size=6), st.data())
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    sent: list[tuple[int, int, int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(pack(source, target, kind, payload) for source, target, kind, payload in sent)
    frames, found = Frames(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += list(frames.feed(stream[:cut]))
        stream = stream[cut:]

    assert found == sent


def test_what_can_be_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="frame"):
        list(Frames().feed(HEAD.pack(MAX_BYTES + 1, 0, 0, 0)))
