"""Parameter files of the cost model, TOML or JSON by their suffix: one table with the fields of CostModel.

Written by calibration, read when a simulated worker or a replay starts.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from workers.simulated.cost_model import OPTIONAL, PARAMETERS, CostModel
from workers.simulated.errors import BadOption

_KEYS = tuple(field.name for field in fields(CostModel))


def read_cost_model(path: Path) -> CostModel:
    """The cost model in a file. Raises BadOption, which names the file and the key."""
    table = _parse(path)
    if not isinstance(table, dict):
        raise BadOption(f"{path}: expected one table of parameters")
    values = {key: _value(path, key, value) for key, value in table.items()}
    missing = [name for name in PARAMETERS if name not in values and name not in OPTIONAL]
    if missing:
        raise BadOption(f"{path}: {missing[0]} is missing; a cost model needs {', '.join(PARAMETERS)}")
    try:
        return CostModel(**values)  # type: ignore[arg-type]  # _value has seen to the types
    except ValueError as error:
        raise BadOption(f"{path}: {error}") from error


def write_cost_model(model: CostModel, path: Path) -> None:
    """Writes the file that `read_cost_model` reads back as an equal model. Raises BadOption."""
    table: Mapping[str, object] = {key: getattr(model, key) for key in _KEYS}
    text = json.dumps(table, indent=2) + "\n" if _kind(path) == "json" else cost_model_toml(model)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror}") from error


def cost_model_toml(model: CostModel) -> str:
    """The text of a TOML file. JSON's numbers are TOML's; so are its strings, but for the delete character."""
    lines = [f"{key} = {json.dumps(getattr(model, key), ensure_ascii=False)}\n" for key in _KEYS]
    return "".join(lines).replace("\x7f", "\\u007F")


def _kind(path: Path) -> str:
    kind = path.suffix.removeprefix(".").lower()
    if kind not in {"toml", "json"}:
        raise BadOption(f"{path}: a cost model is a .toml or a .json file")
    return kind


def _parse(path: Path) -> object:
    kind = _kind(path)
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if kind == "toml" else json.loads(text)
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror}") from error
    except ValueError as error:  # TOML, JSON and Unicode errors
        raise BadOption(f"{path}: {error}") from error


def _value(path: Path, key: str, value: object) -> float | str | tuple[int, ...]:
    if key not in _KEYS:
        near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.0)[0]
        raise BadOption(f"{path}: unknown key {key!r}; did you mean {near!r}?")
    if key == "prefill_sizes":
        if not isinstance(value, list) or any(isinstance(size, bool) or not isinstance(size, int) for size in value):
            raise BadOption(f"{path}: {key} must be a list of whole numbers, got {value!r}")
        return tuple(value)
    if key not in PARAMETERS:
        if not isinstance(value, str):
            raise BadOption(f"{path}: {key} must be text, got {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadOption(f"{path}: {key} must be a number of seconds, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise BadOption(f"{path}: {key} must be a number of seconds, got {value}") from error
