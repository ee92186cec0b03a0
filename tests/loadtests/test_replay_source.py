"""Replay's requests share in key and pages exactly what their trace says they share."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from loadtests.load_request import LoadRequest
from loadtests.replay_load import load_traffic
from loadtests.replay_source import PAGE_TOKENS, traffic_of
from loadtests.trace_file import TraceError
from loadtests.traces import BlockRequest
from router.prefix.block_sizes import depth_within

PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=5).flatmap(
    lambda blocks: st.builds(
        BlockRequest,
        arrival_s=st.just(0.0),
        prompt_tokens=st.integers(512 * (len(blocks) - 1) + 1, 512 * len(blocks)),
        output_tokens=st.integers(0, 200),
        blocks=st.just(tuple(blocks)),
    )
)


def common(left: object, right: object) -> int:
    shared = 0
    for a, b in zip(left, right, strict=False):  # type: ignore[call-overload]
        if a != b:
            break
        shared += 1
    return shared


@given(left=PROMPTS, right=PROMPTS)
def test_two_prompts_share_key_blocks_and_pages_as_far_as_their_blocks_agree(
    left: BlockRequest, right: BlockRequest
) -> None:
    one, other = traffic_of([left, right]).requests
    shared = common(left.blocks, right.blocks)

    pages = min(shared * 512, left.prompt_tokens, right.prompt_tokens) // PAGE_TOKENS
    assert common(one.pages, other.pages) == pages
    assert common(one.key.blocks, other.key.blocks) == depth_within(pages)


@given(request=PROMPTS)
def test_pages_name_every_whole_page_of_prompt_and_answer_once(request: BlockRequest) -> None:
    (one,) = traffic_of([request]).requests

    stored = request.prompt_tokens + max(0, request.output_tokens - 1)
    assert stored // PAGE_TOKENS <= len(one.pages) <= stored // PAGE_TOKENS + 1
    answer = one.pages[request.prompt_tokens // PAGE_TOKENS :]
    assert len(set(answer)) == len(answer)
    assert not set(answer) & set(one.pages[: request.prompt_tokens // PAGE_TOKENS])


def test_requests_without_blocks_share_nothing() -> None:
    request = BlockRequest(arrival_s=0.0, prompt_tokens=1500, output_tokens=10)

    one, other = traffic_of([request, request]).requests

    assert not set(one.pages) & set(other.pages)
    assert not set(one.key.blocks) & set(other.key.blocks)
    assert len(one.key.blocks) == depth_within(1500 // PAGE_TOKENS)


def test_a_next_turn_extends_the_pages_and_the_key_of_the_turn_before() -> None:
    history = [{"role": "user", "content": "word " * 400}]
    turns = []
    for turn in range(2):
        turns.append(
            LoadRequest(session_id="s", turn=turn, arrival_s=1.0 - turn, messages=tuple(history), max_tokens=20)
        )
        history += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}]

    traffic = traffic_of(turns)
    later, first = traffic.requests  # in order of arrival

    assert (later.turn, first.turn, traffic.page_tokens) == (1, 0, 1)
    assert common(first.pages, later.pages) == first.prompt_tokens
    assert common(first.key.blocks, later.key.blocks) == len(first.key.blocks) == first.prompt_tokens // 64
    assert first.wait_for_turn
    assert first.max_output_tokens == 20
    assert not traffic_of(turns, wait_for_turns=False).requests[0].wait_for_turn


def test_a_name_is_a_file_or_a_workload(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n')

    assert load_traffic(str(trace)).name == "t.jsonl"
    assert len({one.session_id for one in load_traffic("multi_turn", limit=3).requests}) == 3
    with pytest.raises(TraceError, match=r"nope: no such file, and no workload of that name \(.*multi_turn"):
        load_traffic("nope")


def test_a_decision_log_is_recognised_by_its_first_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"trieway_decision_log": 1, "block_bytes": 256}\n')

    with pytest.raises(TraceError, match=r"log\.jsonl: holds no request"):
        load_traffic(str(log))
