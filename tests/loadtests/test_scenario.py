"""Scenario files: what they mean, and one clear message for each that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.load_request import LoadRequest
from loadtests.scenario import SHIPPED, Scenario, ScenarioError, find_scenario, read_scenario

WORKLOAD = '[workload]\nkind = "uniform"\nsessions = 3\n'


def written(folder: Path, text: str, name: str = "mine.toml") -> Scenario:
    path = folder / name
    path.write_text(text)
    return read_scenario(path)


def test_a_scenario_needs_only_a_workload(tmp_path: Path) -> None:
    scenario = written(tmp_path, WORKLOAD)

    assert (scenario.name, scenario.title) == ("mine", "mine")
    assert scenario.arms == ("round_robin", "expected_ttft")
    assert (scenario.fleet.workers, scenario.repetitions, scenario.objectives) == (4, 2, {})
    assert scenario.goodput_objective is None
    assert len(scenario.traffic(0)) == 3


def test_repetitions_get_other_texts_and_a_repetition_always_the_same(tmp_path: Path) -> None:
    scenario = written(tmp_path, WORKLOAD)

    assert scenario.traffic(1) == scenario.traffic(1)
    assert scenario.traffic(0) != scenario.traffic(1)


def test_sizes_of_the_kind_stand_beside_the_keys_of_every_workload(tmp_path: Path) -> None:
    scenario = written(tmp_path, WORKLOAD + "output_tokens = 7\nlimit = 2\n")

    assert [one.max_tokens for one in scenario.traffic(0) if isinstance(one, LoadRequest)] == [7, 7]


def test_a_mix_has_parts_with_weights_and_sizes(tmp_path: Path) -> None:
    scenario = written(
        tmp_path,
        '[workload]\nkind = "mix"\nsessions = 40\n[workload.parts.uniform]\nweight = 3\noutput_tokens = 5\n'
        "[workload.parts.few_shot]\nweight = 1\n",
    )
    kinds = [(one.workload, one.max_tokens) for one in scenario.traffic(0) if isinstance(one, LoadRequest)]

    assert set(kinds) == {("uniform", 5), ("few_shot", 80)}
    assert kinds.count(("uniform", 5)) > 20


def test_a_trace_is_found_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"timestamp": 0, "input_length": 3, "output_length": 1, "hash_ids": [9]}\n' * 4)
    scenario = written(tmp_path, '[workload]\ntrace = "t.jsonl"\nlimit = 3\n')

    assert len(scenario.traffic(0)) == 3


def test_endpoints_are_the_arms_instead_of_policies(tmp_path: Path) -> None:
    scenario = written(
        tmp_path, WORKLOAD + '[fleet.endpoints]\nmine = "http://127.0.0.1:1"\nother = "http://127.0.0.1:2"\n'
    )

    assert scenario.arms == ("mine", "other")


def test_the_search_takes_the_objective_that_it_names_or_the_first(tmp_path: Path) -> None:
    objectives = "[objectives.quick]\nttft_s = 0.5\n[objectives.slow]\ne2e_s = 9.0\nshare = 0.5\n"
    first = written(tmp_path, WORKLOAD + objectives).goodput_objective
    named = written(tmp_path, WORKLOAD + objectives + '[goodput]\nobjective = "slow"\n').goodput_objective

    assert first is not None
    assert (first[0], first[1].share, str(first[1])) == ("quick", 0.99, "TTFT <= 0.5 s")
    assert named is not None
    assert (named[0], named[1].share) == ("slow", 0.5)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: str(path.stem))
def test_every_shipped_scenario_is_valid_and_says_what_it_shows(path: Path) -> None:
    scenario = read_scenario(path)

    assert scenario.title != scenario.name
    assert len(scenario.about) > 40
    assert scenario.objectives
    assert find_scenario(path.stem) == path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policys = []\n" + WORKLOAD, "there is no key 'policys'. Did you mean 'policies'?"),
        (WORKLOAD + "[fleet]\nworker = 3\n", "[fleet] has no key 'worker'. Did you mean 'workers'?"),
        (WORKLOAD + "promt_tokens = 3\n", "[workload] has no key 'promt_tokens'. Did you mean 'prompt_tokens'?"),
        (WORKLOAD + "sizes = {}\n", "[workload] has no key 'sizes'"),
        (WORKLOAD + "prompt_tokens = 'x'\n", "workload.prompt_tokens: Expected `int`, got `str`"),
        (WORKLOAD + "[fleet]\nworkers = 0\n", "fleet: 'workers' must be between 1 and 64"),
        (WORKLOAD + "[fleet]\nworkers = 'four'\n", "fleet.workers: Expected `int`, got `str`"),
        (WORKLOAD + "[fleet]\nworker_urls = ['localhost:1']\n", "'localhost:1' is not a URL like http://"),
        (WORKLOAD + "[fleet]\nspeed = 2.0\nworker_urls = ['http://x']\n", "'speed' needs simulated workers"),
        (WORKLOAD + "[objectives.a]\nshare = 0.5\n", "objectives.a: give 'ttft_s', 'tpot_s' or 'e2e_s'"),
        (WORKLOAD + "[objectives.a]\nttft = 1\n", "[objectives.a] has no key 'ttft'. Did you mean 'ttft_s'?"),
        (WORKLOAD + "[objectives]\nttft_s = 1\n", "'objectives.ttft_s' must be a table"),
        (
            WORKLOAD + "[objectives.fast]\nttft_s = 1\n[goodput]\nobjective = 'fsat'\n",
            "there is no [objectives.fsat]. Did you mean 'fast'?",
        ),
        ("policies = ['prefix_mach']\n" + WORKLOAD, "no policy 'prefix_mach'. Did you mean 'prefix_match'?"),
        ("policies = ['prefix_match:load=1']\n" + WORKLOAD, "prefix_match has no parameter 'load'"),
        ("policies = ['random', 'random']\n" + WORKLOAD, "'policies' names one twice"),
        ("repetitions = 0\n" + WORKLOAD, "'repetitions' must be at least 1"),
        ("seed = 'x'\n" + WORKLOAD, "Expected `int`, got `str`"),
        ("", "give either 'kind' or 'trace'"),
        ('[workload]\nkind = "unifrom"\n', "there is no kind 'unifrom'. Did you mean 'uniform'?"),
        ('[workload]\ntrace = "no.jsonl"\n', "no.jsonl: No such file"),
        ('[workload]\nkind = "uniform"\n[workload.parts.rag]\n', '[workload.parts] is for kind = "mix"'),
        ('[workload]\nkind = "mix"\n[workload.parts.chat]\n', "[workload.parts.chat]: there is no kind 'chat'"),
        ('[workload]\nkind = "mix"\n[workload.parts.rag]\nweight = 0\n', "a mix needs a weight above zero"),
        ('[workload]\nkind = "mix"\n[workload.parts.rag]\nweight = -1\n', "parts.rag.weight: must be a number"),
        ("policies = ['random']\n" + WORKLOAD + "[fleet.endpoints]\na = 'http://x'\n", "'policies' cannot be set for"),
        ("workload = 3\n", "'workload' must be a table"),
        ("[workload\n", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest_right(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        written(tmp_path, text)

    assert says in str(caught.value)
    assert "mine" in str(caught.value)


def test_a_name_that_is_none_lists_the_scenarios_there_are() -> None:
    with pytest.raises(ScenarioError, match=r"quik: no such file. Did you mean 'quick'\? Scenarios that come with"):
        find_scenario("quik")
