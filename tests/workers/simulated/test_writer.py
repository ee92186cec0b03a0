"""The simulated model's answers: deterministic, of the length asked for, cut at stops, equal to their tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.simulated.tokenizer import EOS_ID, Tokenizer
from workers.simulated.writer import BOOK_TOKENS, Sampling, Writer

TOKENIZER = Tokenizer()
WRITER = Writer(TOKENIZER, seed=7, natural_tokens=100, stop_early=False)
EARLY = Writer(TOKENIZER, seed=7, natural_tokens=100, stop_early=True)
PROMPTS = st.lists(st.integers(0, 2**32 - 1), max_size=40)


@given(PROMPTS, st.integers(0, 300))
def test_an_answer_has_exactly_the_tokens_asked_for(prompt: list[int], count: int) -> None:
    plan = WRITER.plan(prompt, Sampling(max_new_tokens=count), 0, 10_000)
    assert len(plan.tokens) == count
    assert plan.finish_reason == {"type": "length", "length": count}


@given(PROMPTS, st.integers(1, 300))
def test_the_text_encodes_to_the_tokens(prompt: list[int], count: int) -> None:
    plan = WRITER.plan(prompt, Sampling(max_new_tokens=count), 0, 10_000)
    assert TOKENIZER.encode(plan.text) == list(plan.tokens)


def test_the_same_seed_and_prompt_give_the_same_answer_and_others_another() -> None:
    sampling = Sampling(max_new_tokens=20)
    again = Writer(Tokenizer(), seed=7, natural_tokens=100, stop_early=False)
    other = Writer(Tokenizer(), seed=8, natural_tokens=100, stop_early=False)
    plan = WRITER.plan([1, 2, 3], sampling, 0, 1000)
    assert again.plan([1, 2, 3], sampling, 0, 1000).text == plan.text
    assert other.plan([1, 2, 3], sampling, 0, 1000).text != plan.text
    assert WRITER.plan([1, 2, 4], sampling, 0, 1000).text != plan.text
    assert WRITER.plan([1, 2, 3], sampling, 1, 1000).text != plan.text
    assert WRITER.plan([1, 2, 3], Sampling(max_new_tokens=20, seed=5), 0, 1000).text != plan.text


def test_an_answer_without_a_limit_ends_by_itself_near_the_natural_length() -> None:
    plans = [WRITER.plan([number], Sampling(), 0, 10_000) for number in range(300)]
    assert all(plan.finish_reason == {"type": "stop", "matched": EOS_ID} for plan in plans)
    assert all(plan.tokens[-1] == EOS_ID for plan in plans)
    lengths = [len(plan.tokens) for plan in plans]
    assert min(lengths) >= 50
    assert max(lengths) <= 150
    assert 85 <= sum(lengths) / len(lengths) <= 115


def test_ignore_eos_fills_the_limit() -> None:
    assert len(EARLY.plan([1], Sampling(max_new_tokens=400, ignore_eos=True), 0, 1000).tokens) == 400
    assert len(WRITER.plan([1], Sampling(ignore_eos=True), 0, 700).tokens) == 700


def test_answers_end_before_their_limit_only_where_that_is_switched_on() -> None:
    assert len(WRITER.plan([1], Sampling(max_new_tokens=400), 0, 1000).tokens) == 400
    early = EARLY.plan([1], Sampling(max_new_tokens=400), 0, 1000)
    assert len(early.tokens) <= 150
    assert early.finish_reason["type"] == "stop"


def test_min_new_tokens_holds_off_the_natural_end() -> None:
    plan = EARLY.plan([1], Sampling(max_new_tokens=400, min_new_tokens=300), 0, 1000)
    assert len(plan.tokens) >= 300


@given(st.integers(0, 1000), st.sampled_from(["e", " the ", "tion", "zzzz", "a"]), st.integers(0, 30))
def test_a_stop_string_ends_the_answer_at_its_first_occurrence(prompt: int, stop: str, least: int) -> None:
    whole = WRITER.plan([prompt], Sampling(max_new_tokens=60), 0, 1000)
    plan = WRITER.plan([prompt], Sampling(max_new_tokens=60, stop=(stop,), min_new_tokens=least), 0, 1000)
    at = whole.text.find(stop, 4 * least)
    if at < 0:
        assert plan == whole
    else:
        assert plan.text == whole.text[:at]
        assert plan.finish_reason == {"type": "stop", "matched": stop}
        assert len(plan.tokens) == -(-(at + len(stop)) // 4)


def test_the_earliest_of_several_stops_wins_and_can_be_kept() -> None:
    whole = WRITER.plan([5], Sampling(max_new_tokens=60), 0, 1000)
    third, first = whole.text[30:34], whole.text[8:12]
    plan = WRITER.plan([5], Sampling(max_new_tokens=60, stop=(third, first), no_stop_trim=True), 0, 1000)
    assert plan.finish_reason["matched"] == first
    assert plan.text == whole.text[: whole.text.find(first) + 4]


def test_a_stop_token_ends_the_answer() -> None:
    whole = WRITER.plan([5], Sampling(max_new_tokens=60), 0, 1000)
    token = whole.tokens[10]
    plan = WRITER.plan([5], Sampling(max_new_tokens=60, stop_token_ids=frozenset({token})), 0, 1000)
    at = list(whole.tokens).index(token)
    assert list(plan.tokens) == list(whole.tokens)[: at + 1]
    assert plan.finish_reason == {"type": "stop", "matched": token}
    assert plan.text == whole.text[: 4 * at]


def test_a_fixed_answer_is_said_whole_or_cut_at_the_limit() -> None:
    plan = WRITER.plan([1], Sampling(max_new_tokens=50), 0, 1000, fixed='{"a":1}')
    assert plan.text == '{"a":1}'
    assert plan.finish_reason == {"type": "stop", "matched": EOS_ID}
    assert len(plan.tokens) == 3
    cut = WRITER.plan([1], Sampling(max_new_tokens=1), 0, 1000, fixed='{"a":1}')
    assert cut.text == '{"a"'
    assert cut.finish_reason == {"type": "length", "length": 1}


def test_an_answer_may_be_longer_than_the_book() -> None:
    plan = WRITER.plan([1], Sampling(max_new_tokens=2 * BOOK_TOKENS + 5), 0, 10**6)
    assert len(plan.tokens) == 2 * BOOK_TOKENS + 5
    assert len(plan.text) == 4 * len(plan.tokens)
