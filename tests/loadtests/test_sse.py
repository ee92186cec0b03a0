from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from loadtests.sse import EventReader

DATA = st.text(alphabet='abc{}":é 1', min_size=1).map(str.strip).filter(bool)


@given(st.lists(DATA), st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 400)))
def test_events_do_not_depend_on_how_the_stream_was_cut(payloads: list[str], end: str, cuts: list[int]) -> None:
    stream = "".join(f"data: {payload}{end}{end}" for payload in payloads).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    reader = EventReader()
    events = [event for start, stop in itertools.pairwise(edges) for event in reader.feed(stream[start:stop])]
    assert events == [payload.encode() for payload in payloads]


def test_comments_and_other_fields_are_skipped_and_data_lines_joined() -> None:
    reader = EventReader()
    stream = b": ping\n\nevent: x\ndata: one\ndata: two\nid: 3\n\ndata:three\n\ndata: unfinished"
    assert reader.feed(stream) == [b"one\ntwo", b"three"]
