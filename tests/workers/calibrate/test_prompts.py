"""Prompts are the same everywhere, and share what their segments share."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from workers.calibrate.prompts import FIRST_ID, LAST_ID, Segment, length, text_of, token_ids

SEGMENTS = st.builds(Segment, seed=st.integers(0, 5), tokens=st.integers(1, 40))
PROMPTS = st.lists(SEGMENTS, min_size=1, max_size=4).map(tuple)


@given(prompt=PROMPTS)
def test_a_prompt_has_its_length_and_ids_of_any_vocabulary(prompt: tuple[Segment, ...]) -> None:
    ids = token_ids(prompt)
    assert len(ids) == length(prompt)
    assert all(FIRST_ID <= one <= LAST_ID for one in ids)


@given(seed=st.integers(0, 5), short=st.integers(1, 40), more=st.integers(0, 40))
def test_a_shorter_segment_is_a_prefix_of_a_longer_one_of_its_seed(seed: int, short: int, more: int) -> None:
    whole = token_ids((Segment(seed, short + more),))
    assert whole[:short] == token_ids((Segment(seed, short),))


def test_the_ids_of_a_seed_never_change() -> None:
    """Measurements in files name seeds: other ids would be another prompt."""
    assert token_ids((Segment(1, 4),)).tolist() == [355, 1710, 1551, 584]


def test_a_text_says_something_for_every_token() -> None:
    assert len(text_of((Segment(1, 50),)).split()) == 50
