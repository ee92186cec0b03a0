"""Tokens per estimated token, and the share of cached tokens that is asked for again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.policies.expected_ttft_learned import MOST_MODELS, TokenScale, Wanted


def test_the_scale_is_learned_per_model_and_absurd_counts_are_not() -> None:
    scale = TokenScale()
    for _ in range(50):
        scale.learn("a", 1000.0, 1300)
        for absurd in (None, 0, -5, 10**15):
            scale.learn("a", 1000.0, absurd)

    assert scale.of("a") == pytest.approx(1.3, rel=0.01)
    assert scale.of("b") == 1.0


def test_one_prompt_answers_with_its_own_ratio() -> None:
    scale = TokenScale()

    assert scale.learn("a", 1000.0, 800) == 0.8
    assert scale.learn("a", 1000.0, None) == scale.of("a") == pytest.approx(0.8, rel=0.03)


def test_a_greeting_says_little_of_the_scale_and_a_long_prompt_much() -> None:
    """A greeting is mostly chat template: taken at its word, all later prompts seemed three times as long."""
    scale = TokenScale()

    scale.learn("a", 6.0, 18)
    assert scale.of("a") == pytest.approx(1.0, abs=0.1)

    scale.learn("a", 2000.0, 1500)
    assert scale.of("a") == pytest.approx(0.75, rel=0.03)


def test_names_that_clients_make_up_are_bounded() -> None:
    scale = TokenScale()
    for number in range(3 * MOST_MODELS):
        scale.learn(f"m{number}", 100.0, 200)

    assert len(scale.logs()) == MOST_MODELS


def test_what_returns_within_a_minute_is_wanted_until_then() -> None:
    wanted = Wanted()
    for _ in range(100):
        wanted.learn(100_000.0, 30.0, again=True)
        wanted.learn(100_000.0, 500.0, again=False)

    assert wanted.share(1.0) == pytest.approx(0.5, abs=0.05)
    assert wanted.share(200.0) < 0.1


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(-1e9, 1e12), st.booleans()), max_size=60), st.floats(-1, 1e9))
def test_a_share_is_between_none_and_all(seen: list[tuple[float, float, bool]], age_s: float) -> None:
    wanted = Wanted()
    for tokens, age, again in seen:
        wanted.learn(tokens, age, again=again)

    assert 0.0 <= wanted.share(age_s) <= 1.0
