from __future__ import annotations

from loadtests.block_text import BlockTexts
from loadtests.load_request import LoadRequest
from loadtests.traces import BlockRequest


def call(texts: BlockTexts, blocks: tuple[int, ...], tokens: int, session: str = "s") -> LoadRequest:
    made = BlockRequest(arrival_s=1.0, prompt_tokens=tokens, output_tokens=0, blocks=blocks)
    return texts.load_request(made, session)


def text(request: LoadRequest) -> str:
    content = request.messages[0]["content"]
    assert isinstance(content, str)
    return content


def test_prompts_share_exactly_the_blocks_that_the_trace_says() -> None:
    texts = BlockTexts(seed=1)
    left, right = text(call(texts, (1, 2, 3), 1500)), text(call(texts, (1, 2, 9), 1536))
    shared = next(index for index, (one, other) in enumerate(zip(left, right, strict=False)) if one != other)
    assert 2 * 2048 <= shared < 2 * 2048 + 64  # two sentences may begin alike
    assert (len(left), len(right)) == (6000, 6144)


def test_a_seed_decides_the_text() -> None:
    assert text(call(BlockTexts(1), (7,), 512)) == text(call(BlockTexts(1), (7,), 512))
    assert text(call(BlockTexts(1), (7,), 512)) != text(call(BlockTexts(2), (7,), 512))


def test_requests_without_blocks_share_nothing_and_ask_for_at_least_one_token() -> None:
    texts = BlockTexts(seed=1)
    left, right = call(texts, (), 100, "a"), call(texts, (), 100, "b")
    assert text(left) != text(right)
    assert len(text(left)) == 400
    assert left.max_tokens == 1
