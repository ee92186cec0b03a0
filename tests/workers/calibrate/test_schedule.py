"""The schedule fits the server, and no prompt meets another's cache unless it is meant to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.calibrate.prompts import length
from workers.calibrate.schedule import FULL, QUICK, Sizes, schedule
from workers.calibrate.server_facts import ServerFacts


@pytest.mark.parametrize("sizes", [FULL, QUICK])
def test_an_h200_runs_all_of_it(facts: ServerFacts, sizes: Sizes) -> None:
    names = [experiment.name for experiment in schedule(sizes, facts)]
    assert len(names) == len(set(names))
    groups = {experiment.group for experiment in schedule(sizes, facts)}
    assert groups == {"warm-up", "prefill", "text", "burst", "decode", "shared", "mixed"}


def test_the_full_schedule_reaches_30000_tokens_and_128_requests(facts: ServerFacts) -> None:
    experiments = schedule(FULL, facts)
    assert max(length(call.prompt) for one in experiments for call in one.calls) >= 30_000
    assert max(len(one.calls) for one in experiments if one.group == "decode") == 128


def test_a_small_server_is_asked_for_nothing_it_cannot_hold(facts: ServerFacts) -> None:
    small = replace(facts, kv_capacity_tokens=20_000, max_prompt_tokens=16_000, max_running_requests=32)
    for experiment in schedule(FULL, small):
        whole = [length(call.prompt) + call.output_tokens for call in experiment.calls]
        assert max(whole) < 16_000
        if experiment.group in {"burst", "decode", "mixed"}:
            assert sum(whole) < 20_000
            assert len(whole) <= 32
    assert len(schedule(FULL, small)) < len(schedule(FULL, facts))


def test_only_prompts_that_are_meant_to_share_a_prefix_do(facts: ServerFacts) -> None:
    first: dict[int, str] = {}
    for experiment in schedule(FULL, facts):
        seeds = {call.prompt[0].seed for call in experiment.calls}
        for seed in seeds:
            assert first.setdefault(seed, experiment.name) == experiment.name
        shares = len(seeds) < len(experiment.calls)
        assert shares == ("cached" in experiment.name or experiment.group in {"text", "shared"})


def test_another_seed_gives_other_prompts_of_the_same_sizes(facts: ServerFacts) -> None:
    one, other = schedule(QUICK, facts), schedule(QUICK, facts, seed=1)
    assert [a.name for a in one] == [b.name for b in other]
    for a, b in zip(one, other, strict=True):
        assert [length(call.prompt) for call in a.calls] == [length(call.prompt) for call in b.calls]
        assert not {call.prompt for call in a.calls} & {call.prompt for call in b.calls}
