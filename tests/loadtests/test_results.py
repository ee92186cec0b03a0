from __future__ import annotations

from loadtests.measures import RequestResult
from loadtests.results import settle_cached_tokens


def test_a_missing_cached_count_is_zero_only_if_some_answer_carries_one() -> None:
    def one(prompt: int | None, cached: int | None) -> RequestResult:
        return RequestResult(session_id="", turn=0, start_s=0, e2e_s=1, prompt_tokens=prompt, cached_tokens=cached)

    silent = [one(5, None), one(None, None)]
    assert settle_cached_tokens(silent) == silent
    assert [r.cached_tokens for r in settle_cached_tokens([*silent, one(5, 3)])] == [0, None, 3]
