"""How tokens become the pages that the cache compares."""

from __future__ import annotations

from array import array

from workers.simulated.request import EngineRequest, pages_of_tokens


def test_at_page_size_one_the_pages_are_the_tokens_of_prompt_and_answer() -> None:
    assert pages_of_tokens([1, 2], range(3, 5), 1) == array("I", [1, 2, 3, 4])


def test_larger_pages_are_whole_and_run_from_the_prompt_into_the_answer() -> None:
    assert pages_of_tokens([1, 2, 3], [4, 5], 2) == ((1, 2), (3, 4))


def test_the_limit_is_never_below_what_will_be_made() -> None:
    request = EngineRequest.of_tokens(rid="1", prompt=[1], output=[2, 3], page_size=1, max_new_tokens=1)
    assert (request.limit_tokens, request.prompt_tokens, request.output_tokens) == (2, 1, 2)
