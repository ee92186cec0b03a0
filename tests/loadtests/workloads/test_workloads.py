"""What every registered workload promises; what is special about each stands in its own test below."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import pytest

from loadtests.load_request import LoadRequest
from loadtests.workloads import (
    WORKLOADS,
    AgentLoop,
    Blend,
    FewShot,
    Mix,
    MultiTurn,
    Rag,
    SharedPrefix,
    ShareGptLike,
    Uniform,
    Workload,
    generate,
    session_of,
)
from loadtests.workloads.base import rng_of
from loadtests.workloads.prose import prose

EACH = pytest.mark.parametrize("name", WORKLOADS)


def contents(request: LoadRequest) -> bytes:
    return msgspec.json.encode([request.tools, request.messages])


@EACH
def test_a_seed_decides_everything(name: str) -> None:
    kind = WORKLOADS[name]
    made = [generate(kind(), sessions=5, sessions_per_s=2.0) for _ in range(2)]
    assert made[0] == made[1]
    assert session_of(kind(), 3) == session_of(kind(), 3)


@EACH
def test_sessions_arrive_in_order_and_number_their_turns(name: str) -> None:
    requests = generate(WORKLOADS[name](), sessions=20, sessions_per_s=2.0)
    arrivals = [request.arrival_s for request in requests]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] > 0
    turns: dict[str, int] = {}
    for request in requests:
        assert request.turn == turns.get(request.session_id, 0)
        turns[request.session_id] = request.turn + 1
        assert (request.gap_s == 0) or request.turn > 0
        assert request.workload == name or (name == "mix" and request.workload in WORKLOADS)
        assert request.max_tokens > 0
    assert len(turns) == 20


@EACH
def test_a_body_is_a_valid_chat_call(name: str) -> None:
    for request in session_of(WORKLOADS[name](), 0):
        body = msgspec.json.decode(msgspec.json.encode(request.body("m")))
        assert body["model"] == "m"
        assert all(message["role"] in {"system", "user", "assistant", "tool"} for message in body["messages"])
        assert body["messages"][-1]["role"] in {"user", "tool"}


@pytest.mark.parametrize("workload", [MultiTurn(turns=4), AgentLoop(steps=4), ShareGptLike(turns=4)])
def test_each_turn_continues_the_history_of_the_one_before(workload: Workload) -> None:
    sessions = [session_of(workload, index) for index in range(10)]
    assert max(map(len, sessions)) > 1
    for session in sessions:
        for before, after in itertools.pairwise(session):
            assert tuple(after.messages)[: len(before.messages)] == tuple(before.messages)
            assert len(after.messages) == len(before.messages) + 2


def test_shared_prefixes_are_as_many_as_applications() -> None:
    requests = generate(SharedPrefix(applications=3), sessions=50, sessions_per_s=1.0)
    assert len({msgspec.json.encode(request.messages[0]) for request in requests}) == 3
    assert len({contents(request) for request in requests}) == 50


def test_few_shot_prompts_of_a_task_differ_in_the_last_message_only() -> None:
    requests = generate(FewShot(tasks=2, shots=3), sessions=20, sessions_per_s=1.0)
    assert len({msgspec.json.encode(request.messages[:-1]) for request in requests}) == 2
    assert all(len(request.messages) == 8 for request in requests)


def test_popular_documents_are_asked_about_more_often() -> None:
    first = Counter(
        msgspec.json.encode(session_of(Rag(document_tokens=20, popularity=1.5), index)[0].messages[0])
        for index in range(300)
    )
    assert first.most_common(1)[0][1] > 60
    assert len(first) > 10


def test_tools_are_the_same_in_every_session() -> None:
    sessions = [session_of(AgentLoop(), index) for index in range(3)]
    assert len({msgspec.json.encode(session[0].tools) for session in sessions}) == 1
    assert sessions[0][0].tools


def test_one_offs_share_no_prefix_worth_caching() -> None:
    requests = generate(Uniform(), sessions=20, sessions_per_s=1.0)
    assert len({str(request.messages[0]["content"])[:120] for request in requests}) == 20


def test_prose_has_the_size_asked_for() -> None:
    assert len(prose(rng_of(0, "x"), 100)) == 400
    assert prose(rng_of(0, "x"), 0) == ""


def test_pauses_can_be_switched_off() -> None:
    assert all(turn.gap_s == 0 for turn in session_of(MultiTurn(think_s=0.0, turns=5), 1))


def test_a_mix_draws_sessions_by_weight() -> None:
    requests = generate(Mix(rag=0, uniform=60), sessions=300, sessions_per_s=1.0)
    sessions = Counter({request.session_id: request.workload for request in requests}.values())
    assert sessions["rag"] == 0
    assert sessions["uniform"] > 200
    assert len(sessions) == 5


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a weight above zero"):
        Blend([(0.0, Uniform())], seed=0)


def test_lengths_like_sharegpts_have_its_mean_and_a_long_tail() -> None:
    requests = generate(ShareGptLike(longest_tokens=100_000), sessions=1500, sessions_per_s=1.0)
    lengths = sorted(request.max_tokens for request in requests)
    assert 300 < sum(lengths) / len(lengths) < 380
    assert lengths[len(lengths) // 2] < 200
    assert lengths[-len(lengths) // 100] > 1500
