"""Parameter files: what is written is read back; what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from workers.simulated.cost_file import read_cost_model, write_cost_model
from workers.simulated.cost_model import H200_QWEN3_8B, PARAMETERS, CostModel
from workers.simulated.errors import BadOption

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SIZES = st.sets(st.integers(1, 9000)).map(sorted).map(tuple)
SECONDS = st.floats(1e-12, 10.0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    model=st.builds(
        CostModel, **dict.fromkeys(PARAMETERS, SECONDS), model=TEXT, hardware=TEXT, source=TEXT, prefill_sizes=SIZES
    ),
    suffix=st.sampled_from([".toml", ".json", ".TOML"]),
)
def test_a_written_model_is_read_back_equal(tmp_path: Path, model: CostModel, suffix: str) -> None:
    path = tmp_path / f"cost{suffix}"
    write_cost_model(model, path)
    assert read_cost_model(path) == model


def table(**changes: object) -> dict[str, object]:
    whole = {name: getattr(H200_QWEN3_8B, name) for name in PARAMETERS} | changes
    return {key: value for key, value in whole.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table(prefil_token_s=1e-5), "unknown key 'prefil_token_s'; did you mean 'prefill_token_s'?"),
        (table(gpu="H100"), "unknown key 'gpu'"),
        (table(decode_request_s="fast"), "decode_request_s must be a number of seconds, got 'fast'"),
        (table(decode_request_s=True), "decode_request_s must be a number of seconds, got True"),
        (table(decode_request_s=-0.1), "decode_request_s must be a finite number of seconds, at least 0, got -0.1"),
        (table(decode_request_s=10**400), "decode_request_s must be a number of seconds"),
        (table(decode_step_base_s=0), "decode_step_base_s must be a finite number of seconds, above 0"),
        (table(prefill_sizes=8), "prefill_sizes must be a list of whole numbers, got 8"),
        (table(prefill_sizes=[8, 4]), "prefill_sizes must be numbers of tokens in ascending order"),
        (table(prefill_sizes=[0, 4]), "prefill_sizes must be numbers of tokens in ascending order"),
        (table(hardware=8), "hardware must be text, got 8"),
        (table(prefill_token_s=None), "prefill_token_s is missing"),
        ([1, 2], "expected one table"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BadOption) as caught:
        read_cost_model(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("a.toml", "x ="), ("a.json", "{"), ("a.txt", ""), ("a.toml", "\xff")])
def test_a_file_that_cannot_be_parsed_is_refused(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadOption, match=name):
        read_cost_model(path)


def test_a_file_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "cost.toml"
    with pytest.raises(BadOption, match="No such file"):
        read_cost_model(missing)
    with pytest.raises(BadOption, match="No such file"):
        write_cost_model(replace(H200_QWEN3_8B), missing)
