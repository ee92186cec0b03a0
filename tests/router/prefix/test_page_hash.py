"""Page hashes are SGLang's own, and remembering chunks changes nothing but the work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.prefix.page_hash import MARK_TOKENS, PageChains, mark_step, marks_among, page_hashes

ids = st.lists(st.integers(0, 2**32 - 1), max_size=700)


@pytest.mark.parametrize(
    ("tokens", "page_tokens", "salt", "hashes"),
    [
        ([1, 2, 3, 4, 70000, 6, 7], 2, None, [3817746824117602890, -4216701448867210342, -4641449921464844939]),
        ([1, 2, 3], 1, None, [7470307888890966271, -1634645291211865391, 7325169757385981536]),
        ([1, 2, 3, 4], 2, "pepper", [6146996861635436220, -6218465168742008688]),
        ([1], 2, None, []),
        ([], 1, None, []),
    ],
)
def test_hashes_are_those_that_sglang_computes(
    tokens: list[int], page_tokens: int, salt: str | None, hashes: list[int]
) -> None:
    """The figures are the output of SGLang 0.5.21's own function."""
    assert page_hashes(tokens, page_tokens, salt) == hashes


@settings(deadline=None)
@given(st.lists(st.tuples(ids, st.integers(0, 700)), min_size=1, max_size=4), st.sampled_from([1, 2, 16, 64, 300]),
       st.sampled_from([None, "a", "b"]), st.integers(1, 5))  # fmt: skip
def test_remembered_chunks_give_the_marks_of_the_whole(
    prompts: list[tuple[list[int], int]], page_tokens: int, salt: str | None, capacity: int
) -> None:
    chains = PageChains(capacity)
    before: list[int] = []
    for tokens, shared in prompts:
        prompt = before[:shared] + tokens  # a next turn, or another branch
        hashes = page_hashes(prompt, page_tokens, salt)
        step = mark_step(page_tokens)
        wanted = [((page + 1) * page_tokens, value) for page, value in enumerate(hashes) if value % step == 0]

        assert chains.marks(prompt, page_tokens, salt) == wanted
        assert [value for _, value in wanted] == marks_among(hashes, page_tokens)
        before = prompt


def test_memory_is_bounded() -> None:
    chains = PageChains(capacity_chunks=3)
    for start in range(20):
        chains.marks(list(range(start, start + 1000)), 16)

    assert len(chains._chunks) == 3


def test_marks_of_small_pages_are_as_far_apart_as_promised() -> None:
    marks = PageChains().marks(list(range(64_000)), 1)

    assert 0.8 < len(marks) * MARK_TOKENS / 64_000 < 1.2


@pytest.mark.parametrize("tokens", [[-1], [2**32]])
def test_ids_that_are_none_are_refused(tokens: list[int]) -> None:
    with pytest.raises(OverflowError):
        PageChains().marks(tokens, 1)
