"""What expected_ttft keeps over a restart decides as before, and nothing that is damaged is taken up."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import inf, nan
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.policies.expected_ttft import ExpectedTtft, ExpectedTtftConfig
from router.policies.persists import Persists
from router.records import Dispatched, Finished, FirstToken, Outcome, RoutingRequest
from router.types import LoadReport, LoadReported, PromptKey, RequestId, WorkerId, WorkerJoined

NAMES = [WorkerId(f"w{i}") for i in range(3)]


@dataclass
class View:
    id: WorkerId
    in_flight: int = 0
    load: LoadReport | None = None


def chained(*blocks: int) -> tuple[int, ...]:
    hashes, seed = [], 0
    for block in blocks:
        seed = hash((seed, block))
        hashes.append(seed)
    return tuple(hashes)


def request(name: str, blocks: tuple[int, ...], at_s: float) -> RoutingRequest:
    key = PromptKey(blocks=blocks, unit_tokens=512.0, prompt_tokens=512.0 * len(blocks) + 100)
    return RoutingRequest(
        request_id=RequestId(name), endpoint="/generate", key=key, at_s=at_s, stream=True, model="m"
    )


def blank() -> ExpectedTtft:
    return ExpectedTtft(ExpectedTtftConfig(capacity_tokens=20_000), Random(1))


def learned(seed: int = 1) -> ExpectedTtft:
    """A policy after 200 requests that share prefixes, on workers of different speeds that evict."""
    policy, rng, views = blank(), Random(seed), [View(name) for name in NAMES]
    for name in NAMES:
        policy.observe(WorkerJoined(worker=name, at_s=0.0))
    for number in range(200):
        at_s = float(number)
        asked = request(f"r{number}", chained(*(rng.randrange(3) for _ in range(rng.randint(1, 12)))), at_s)
        decision = policy.select(asked, views)
        worker = decision.worker
        policy.observe(Dispatched(request=asked, decision=decision, at_s=at_s))
        first_s = at_s + 0.05 * (1 + NAMES.index(worker))
        policy.observe(FirstToken(request_id=asked.request_id, worker=worker, ttft_s=0.1, at_s=first_s))
        prompt = int(asked.key.prompt_tokens * 1.2)
        outcome = Outcome(
            request_id=asked.request_id, endpoint="/generate", at_s=at_s, status=200, e2e_s=0.9, prompt_tokens=prompt,
            cached_tokens=int(decision.match_tokens), completion_tokens=50,
        )  # fmt: skip
        policy.observe(Finished(request_id=asked.request_id, worker=worker, outcome=outcome, at_s=at_s + 0.9))
    report = LoadReport(
        at_s=199.95, running=0, waiting=0, waiting_uncached_tokens=0, used_tokens=0, capacity_tokens=30_000
    )
    policy.observe(LoadReported(worker=NAMES[0], load=report, at_s=199.95))
    return policy


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(state))
    return found


def test_a_policy_that_took_up_what_another_kept_weighs_workers_as_that_one_did() -> None:
    before, after, views = learned(), blank(), [View(name) for name in NAMES]
    shift_s = 5000.0  # the clock of the machine started anew
    after.load(through_a_file(before.dump(200.0)), 200.0 + shift_s, NAMES)
    rng = Random(7)

    for number in range(50):
        blocks = chained(*(rng.randrange(3) for _ in range(8)))
        old = before.candidates(request(f"q{number}", blocks, 200.0), views)
        new = after.candidates(request(f"q{number}", blocks, 200.0 + shift_s), views)
        for one, other in zip(old, new, strict=True):
            assert one.match_tokens == pytest.approx(other.match_tokens)
            assert dict(one.terms_s)["prefill"] == pytest.approx(dict(other.terms_s)["prefill"])
            assert dict(one.terms_s)["displaced"] == pytest.approx(dict(other.terms_s)["displaced"])
    assert after.index_blocks() == before.index_blocks()


def test_it_is_what_the_state_keeper_asks_for() -> None:
    assert isinstance(blank(), Persists)


def test_only_the_given_workers_are_taken_up() -> None:
    after = blank()
    after.load(learned().dump(200.0), 0.0, NAMES[:1])

    assert set(after.index_blocks()) == {NAMES[0]}


def test_requests_under_way_are_not_kept_but_prompts_that_were_read_are() -> None:
    policy, views = blank(), [View(NAMES[0])]
    for name, blocks in (("read", chained(1, 2)), ("waits", chained(5, 6))):
        asked = request(name, blocks, 1.0)
        decision = policy.select(asked, views)
        policy.observe(Dispatched(request=asked, decision=decision, at_s=1.0))
        if name == "read":
            policy.observe(FirstToken(request_id=asked.request_id, worker=NAMES[0], ttft_s=0.1, at_s=1.1))
    after = blank()
    after.load(through_a_file(policy.dump(2.0)), 0.0, NAMES)
    asked = request("q", chained(1, 2), 0.0)

    assert after.select(asked, views).match_blocks == 2
    assert after.select(request("q", chained(5, 6), 0.0), views).match_blocks == 0
    assert dict(after.candidates(asked, views)[0].terms_s)["wait"] == 0.0


def damaged(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    state: Any = through_a_file(learned().dump(200.0))
    inner = state
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    whole: dict[str, Any] = state
    return whole


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 1),
        (("answer_tokens",), nan),
        (("again",), [0.0]),
        (("scale",), [["m", 99.0]]),
        (("workers", "w0", "rate"), [0.0, 0.0, inf, 0.0]),
        (("workers", "w0", "rate"), [0.0, 0.0, 5.0, 0.0]),
        (("workers", "w0", "capacity_tokens"), 0.0),
        (("workers", "w0", "factor"), nan),
        (("workers", "w0", "observations"), -1),
        (("workers", "w0", "prompts", 0), [0, 0, -1.0, 512.0, 0.0, [1]]),
        (("workers", "w0", "prompts", 0), [0, 9, 1.0, 512.0, 0.0, [1]]),
        (("workers", "w0", "prompts", 0), [0, 0, 1.0, 0.0, 0.0, [1]]),
        (("workers", "w0", "prompts", 0), [0, 0, 1.0, 512.0, 0.0, ["text"]]),
        (("workers", "w0", "prompts"), [[0, 0, 1.0, 512.0, 0.0, [1]], [0, 0, 1.0, 512.0, 0.0, [1]]]),
        (("workers",), None),
    ],
)
def test_what_is_damaged_is_refused_and_changes_nothing(path: tuple[Any, ...], value: Any) -> None:
    after = blank()
    after.observe(WorkerJoined(worker=NAMES[0], at_s=0.0))
    before = after.dump(1.0)

    with pytest.raises(ValueError, match=r"."):
        after.load(damaged(path, value), 0.0, NAMES)

    assert after.dump(1.0) == before


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=6), st.data())  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_anything_in_any_place_is_refused_or_harmless(value: Any, data: st.DataObject) -> None:
    state: Any = copy.deepcopy(KEPT)
    spot = data.draw(st.sampled_from(["version", "answer_tokens", "scale", "again", "never", "workers"]))
    if data.draw(st.booleans()):
        state[spot] = value
    else:
        worker = state["workers"]["w1"]
        worker[data.draw(st.sampled_from(sorted(worker)))] = value
    after = blank()
    try:
        after.load(state, 0.0, NAMES)
    except ValueError:
        return
    chosen = after.select(request("q", chained(1, 2, 0), 0.0), [View(name) for name in NAMES])
    assert chosen.expected_ttft_s is not None
    assert 0.0 <= chosen.expected_ttft_s < 1e6


KEPT = through_a_file(learned().dump(200.0))
