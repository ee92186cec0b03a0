"""The tree of shared prefixes is what a naive comparison of all prompts finds."""

from __future__ import annotations

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from outcomes import decision, key, outcome
from router.dashboard.prefix_map import hot_branches, served_share, walk
from router.prefix.block_hash import chain
from router.records import Outcome


def prompt(text: str, worker: str = "w1", status: int = 200) -> Outcome:
    blocks = chain(text.encode(), 1, 7)
    return outcome(text, key=key(*blocks), decision=decision(worker), status=status)


def shared(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def test_branches_begin_where_prompts_part_and_end_where_they_part_again() -> None:
    roots = hot_branches([prompt(text) for text in ("aabbx", "aabby", "aabbx", "aacc", "aacd", "zz", "q")])

    found = {(branch.start, branch.end, branch.requests) for branch in walk(roots)}

    assert found == {(0, 2, 5), (2, 4, 3), (4, 5, 2), (2, 3, 2)}
    assert [branch.requests for branch in roots] == [5]


@given(st.lists(st.text(alphabet="ab", min_size=0, max_size=8), max_size=12))
def test_every_branch_is_a_longest_prefix_that_its_requests_share_and_nobody_else_has(texts: list[str]) -> None:
    outcomes = [prompt(text) for text in texts]
    branches = list(walk(hot_branches(outcomes, most=1000)))

    for branch in branches:
        members = [str(each.request_id) for each in branch.outcomes]
        assert len(members) >= 2
        assert branch.end == min(shared(members[0], other) for other in members[1:])
        having = [text for text in texts if text[: branch.end] == members[0][: branch.end]]
        assert sorted(having) == sorted(members)
    longest = {text[: shared(text, other)] for k, text in enumerate(texts) for other in texts[k + 1 :]} - {""}
    assert {str(branch.outcomes[0].request_id)[: branch.end] for branch in branches} == longest


def test_the_most_used_are_kept_with_their_parents() -> None:
    texts = [f"common{place}{number}" for place in "abcdef" for number in (1, 1, 2, 2)]

    kept = list(walk(hot_branches([prompt(text) for text in texts], most=4)))

    assert len(kept) == 4
    assert (kept[0].end, kept[0].requests) == (6, 24)
    assert all(branch.requests == 4 for branch in kept[1:])


def test_who_served_a_prefix_held_it_then() -> None:
    (root,) = hot_branches([prompt("aab", "w1"), prompt("aac", "w2"), prompt("aad", "w3", status=502)])

    assert served_share(root) == {"w1": 1.0, "w2": 1.0}
