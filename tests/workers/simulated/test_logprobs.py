"""What holds for every log-probability, whatever the tokens. The shapes are in tests/contract, where the real server
has them too.
"""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from workers.simulated.generation import Generation, Wanted
from workers.simulated.logprobs import UNLIKELY, Logprobs
from workers.simulated.tokenizer import Tokenizer
from workers.simulated.writer import Plan

token_ids = st.integers(0, 2**32 - 1)


def generation(prompt: list[int], said: list[int], wanted: Wanted) -> Generation:
    plan = Plan(tokens=said, text="x" * 4 * len(said), finish_reason={"type": "length"})
    made = Generation(
        rid="r", prompt=prompt, plan=plan, namespace=(None,), rank=0, limit_tokens=9, arrived_s=0.0, wanted=wanted
    )
    made.produced = len(said)
    return made


@given(
    prompt=st.lists(token_ids, min_size=1, max_size=5),
    said=st.lists(token_ids, max_size=5),
    top=st.integers(0, 20),
    start=st.integers(0, 5),
)
def test_probabilities_of_different_tokens_at_one_place_add_up_to_one_at_most(
    prompt: list[int], said: list[int], top: int, start: int
) -> None:
    wanted = Wanted(start=min(start, len(prompt)), top=top)
    found = Logprobs(Tokenizer(), wanted, generation(prompt, said, wanted))
    for rows in [*found.prompt_tops(), *found.said_tops()]:
        if rows is not None:
            assert len({token for _, token, _ in rows}) == len(rows) == top
            assert sum(math.exp(log) for log, _, _ in rows if log is not None) <= 1.0


@given(prompt=st.lists(token_ids, min_size=1, max_size=5), said=st.lists(token_ids, min_size=1, max_size=5))
def test_what_is_said_is_more_likely_than_anything_else(prompt: list[int], said: list[int]) -> None:
    wanted = Wanted(start=0, top=3, token_ids=(1, 2))
    found = Logprobs(Tokenizer(), wanted, generation(prompt, said, wanted))

    assert all(-1.0 <= (log or 0.0) <= -0.5 for log, _, _ in found.said_rows())
    assert all((log or 0.0) <= UNLIKELY for log, _, _ in found.prompt_rows()[1:])
    assert [top[0] for top in found.said_tops()] == found.said_rows()
    for rows, token in zip(found.native_fields()["output_token_ids_logprobs"], said, strict=True):
        assert all((log > UNLIKELY) == (asked == token) for log, asked, _ in rows)


def test_rows_since_a_token_are_the_end_of_all_rows() -> None:
    wanted = Wanted(top=2)
    found = Logprobs(Tokenizer(), wanted, generation([1, 2], [3, 4, 5], wanted))

    assert found.said_rows(2) == found.said_rows()[2:]
    assert found.said_tops(1) == found.said_tops()[1:]
