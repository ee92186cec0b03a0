"""The workload that real and simulated servers are compared on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import mean

import pytest

from workers.calibrate.prompts import length
from workers.calibrate.server_facts import ServerFacts
from workers.calibrate.workload import FULL_LEVELS, FULL_MIX, QUICK_LEVELS, QUICK_MIX, workload


def test_equal_arguments_give_equal_workloads_and_other_seeds_other_ones(facts: ServerFacts) -> None:
    assert workload(QUICK_MIX, QUICK_LEVELS, facts, seed=3) == workload(QUICK_MIX, QUICK_LEVELS, facts, seed=3)
    assert workload(QUICK_MIX, QUICK_LEVELS, facts, seed=3) != workload(QUICK_MIX, QUICK_LEVELS, facts, seed=4)


def test_rates_and_users_are_those_of_the_levels(facts: ServerFacts) -> None:
    levels = {experiment.name: experiment for experiment in workload(FULL_MIX, FULL_LEVELS, facts)}
    open_calls = levels["4 requests/s"].calls
    assert not any(call.after for call in open_calls)
    gaps = [later.delay_s - earlier.delay_s for earlier, later in pairwise(open_calls)]
    assert mean(gaps) == pytest.approx(0.25, rel=0.25)
    closed = levels["128 at a time"].calls
    assert sum(not call.after for call in closed) == 128
    assert all(call.after == (index - 128,) for index, call in enumerate(closed) if index >= 128)


def test_prompts_are_long_share_prefixes_and_fit(facts: ServerFacts) -> None:
    for experiment in workload(FULL_MIX, FULL_LEVELS, replace(facts, max_prompt_tokens=20_000)):
        lengths = [length(call.prompt) for call in experiment.calls]
        assert max(lengths) + 512 <= 20_000
        firsts = {call.prompt[0].seed for call in experiment.calls}
        assert len(firsts) <= FULL_MIX.prefixes
        assert any(len(call.prompt) > 3 for call in experiment.calls)  # later turns of a conversation


def test_levels_beyond_what_the_server_runs_at_once_are_left_out(facts: ServerFacts) -> None:
    names = [one.name for one in workload(FULL_MIX, FULL_LEVELS, replace(facts, max_running_requests=20))]
    assert "16 at a time" in names
    assert "32 at a time" not in names
