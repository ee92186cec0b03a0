"""What the default policy knew before a restart it knows after it: cached prefixes in their order, learned rates."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_fakes import View
from router.config import RouterConfig
from router.policies import POLICIES, build_policy
from router.policies.expected_ttft import ExpectedTtft, ExpectedTtftConfig
from router.policies.persists import Persists
from router.prefix.cache_image import CacheImage
from router.types import (
    Dispatched,
    Finished,
    FirstToken,
    Outcome,
    PromptKey,
    RequestId,
    RoutingRequest,
    WorkerId,
    WorkerJoined,
)

TOKENS = 64.0
FLEET = [View(WorkerId("a")), View(WorkerId("b"))]
IDS = [worker.id for worker in FLEET]


def chained(blocks: list[int]) -> list[int]:
    """Hashes that name everything up to their block, as block_hash.chain makes them."""
    hashes, seed = [], 0
    for block in blocks:
        seed = hash((seed, block)) % 2**64
        hashes.append(seed)
    return hashes


def carried(data: Any) -> Any:
    """As the state file brings it back."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(data))


prompts = st.lists(st.integers(0, 2), max_size=8).map(chained)
uses = st.lists(st.tuples(prompts, st.sampled_from(["computed", "cut", "held"])), max_size=25)


def image_of(used: list[tuple[list[int], str]]) -> CacheImage:
    image = CacheImage(1e9, 1000)
    for at_s, (prompt, end) in enumerate(used):
        entry = image.use(prompt, TOKENS, 10.0, float(at_s)).entry
        if end == "computed":
            image.reuse(entry, at_s + 0.5)
        elif end == "cut":
            image.cut(entry)
        if end != "held":
            image.release(entry)
    return image


@given(uses)
def test_an_image_holds_the_same_after_a_restart_and_evicts_in_the_same_order(
    used: list[tuple[list[int], str]]
) -> None:
    before = image_of([each for each in used if each[1] != "held"])
    after = CacheImage(1e9, 1000)
    after.load(carried(before.dump(100.0)), 7.0)

    asked = [prompt for prompt, _ in used]
    assert [after.match(prompt) for prompt in asked] == [before.match(prompt) for prompt in asked]
    while before.size_blocks:
        before.capacity_blocks = after.capacity_blocks = before.size_blocks - 1
        for image in (before, after):
            image.release(image.use([], TOKENS, 0.0).entry)
        assert [after.match(prompt) for prompt in asked] == [before.match(prompt) for prompt in asked]


@given(uses)
def test_of_what_is_held_only_what_is_computed_is_kept_and_every_prefix_is_whole(
    used: list[tuple[list[int], str]]
) -> None:
    before = image_of(used)
    rows = before.dump(100.0)
    after = CacheImage(1e9, 1000)
    after.load(carried(rows), 0.0)

    kept = {block for *_, blocks in rows for block in blocks}
    assert after.held_tokens == 0.0
    for prompt, _ in used:
        assert after.match(prompt) <= before.match(prompt)
        assert [block in kept for block in prompt] == [i < after.match(prompt) for i in range(len(prompt))]


def served(policy: ExpectedTtft, number: int, blocks: list[int], worker: WorkerId, took_s: float) -> None:
    key = PromptKey(blocks=tuple(blocks), block_tokens=TOKENS, prompt_tokens=TOKENS * len(blocks))
    at_s = 10.0 * number
    one = RoutingRequest(
        request_id=RequestId(f"r{number}"), endpoint="/generate", key=key, at_s=at_s, stream=True, model="m"
    )
    decision = policy.select(one, [each for each in FLEET if each.id == worker])
    policy.observe(Dispatched(request=one, decision=decision, at_s=at_s))
    policy.observe(FirstToken(request_id=one.request_id, worker=worker, ttft_s=took_s, at_s=at_s + took_s))
    outcome = Outcome(
        request_id=one.request_id, endpoint="/generate", at_s=at_s, status=200, e2e_s=2.0, completion_tokens=50,
        prompt_tokens=int(1.1 * key.prompt_tokens), cached_tokens=0,
    )  # fmt: skip
    policy.observe(Finished(request_id=one.request_id, worker=worker, at_s=at_s + 2.0, outcome=outcome))


def built() -> ExpectedTtft:
    policy = ExpectedTtft(ExpectedTtftConfig(), Random(1))
    for worker in IDS:
        policy.observe(WorkerJoined(worker=worker, at_s=0.0))
    return policy


def taught() -> ExpectedTtft:
    policy = built()
    for number in range(40):
        worker = IDS[number % 2]
        served(policy, number, chained([number % 2, *range(number % 7)]), worker, took_s=0.05 * (1 + number % 2))
    return policy


def views_of(policy: ExpectedTtft) -> list[Any]:
    """How it weighs some requests."""
    found = []
    for blocks in ([0, 0, 1, 2], [1, 0, 1, 2, 3, 4], [5, 6]):
        key = PromptKey(blocks=tuple(chained(blocks)), block_tokens=TOKENS, prompt_tokens=TOKENS * len(blocks))
        one = RoutingRequest(request_id=RequestId("?"), endpoint="/generate", key=key, at_s=500.0, model="m")
        found.append(policy.candidates(one, FLEET))
    return found


def test_a_restarted_policy_weighs_every_worker_as_before() -> None:
    before, after = taught(), built()
    assert views_of(after) != views_of(before)

    after.load(carried(before.dump(500.0)), 500.0, IDS)
    assert views_of(after) == views_of(before)
    assert after.index_blocks() == before.index_blocks() != {}


def test_workers_that_are_not_there_any_more_or_were_not_saved_change_nothing() -> None:
    saved, after = carried(taught().dump(500.0)), built()
    after.load(saved, 500.0, [IDS[0], WorkerId("new")])

    assert set(after.index_blocks()) == {"a"}
    assert set(after.images()) == {"a", "b"}


BROKEN: list[Any] = [
    {}, {"workers": 3}, [], ("scale", [[1, 2]]), ("scale", [["m", 9.0]]), ("wanted", [[1.0], [1.0]]),
    ("wanted", 3), ("answer_tokens", "many"), ("answer_tokens", float("nan")), ("workers", {"a": 3}),
    ("prompts", [[0, 64.0, 0.0, 1.0, ["x"]]]), ("prompts", [[0, 64.0, 0.0, 1.0, []]]),
    ("prompts", [[0, -1.0, 0, 1, [1]]]),
    ("prompts", [[0.5, 64.0, 0.0, 1.0, [1]]]), ("prompts", [3]), ("rate", [0.0, 0.0]), ("rate", ["a", 0, 0, 0, 0]),
    ("size", [5.0, 1.0, True, True]), ("size", [5000.0, 1e9, True, True]), ("size", []), ("answer_s", -1.0),
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_what_it_did_not_save_itself_is_refused_and_changes_nothing(broken: Any) -> None:
    state = copy.deepcopy(carried(taught().dump(500.0)))
    if not isinstance(broken, tuple):
        state = broken
    elif broken[0] in state:
        state[broken[0]] = broken[1]
    else:
        state["workers"]["a"][broken[0]] = broken[1]
    policy, untaught = built(), built()

    with pytest.raises(ValueError, match=r"."):
        policy.load(state, 500.0, IDS)
    assert views_of(policy) == views_of(untaught)


def test_the_default_policy_is_one_that_survives_a_restart() -> None:
    default = RouterConfig().policy

    assert default in POLICIES
    assert isinstance(build_policy(default, RouterConfig().policies, Random(0)), Persists)
