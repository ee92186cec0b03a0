"""Constrained answers obey their constraint, or the constraint is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.simulated.constrained import Unsupported, json_sample, regex_sample

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object"},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 7}}, "required": ["a"]},
    {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "minItems": 2, "maxItems": 3},
    {"type": "string", "minLength": 30, "maxLength": 40},
    {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"},
    {"enum": ["red", "green", "gr\u00fcn"]},
    {"const": {"x": [1, None]}},
    {"anyOf": [{"type": "null"}, {"type": "string"}]},
    {"type": ["string", "null"]},
    {
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
        },
        "$ref": "#/$defs/node",
    },
    {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}, {"required": ["a"]}]},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_a_sample_is_accepted_by_its_schema(schema: dict[str, Any]) -> None:
    for seed in range(25):
        jsonschema.validate(json.loads(json_sample(schema, seed)), schema)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(yes|no)",
        r"[0-9]{3}-[a-f]+",
        r"\d{4}/\w{2,5}\s?\S*",
        r"a*b?c+?",
        r"[^a-z]{4}",
        r"(\w)\1",
        r"(?:ab|cd){2}$",
        r"^x.y$",
        r"(((25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(25[0-5]|2[0-4]\d|[01]?\d\d?))",
        r"\D\W[^\d]",
    ],
)
def test_a_sample_matches_its_regular_expression(pattern: str) -> None:
    for seed in range(25):
        assert re.fullmatch(pattern, regex_sample(pattern, seed))


@given(st.integers())
def test_the_same_seed_gives_the_same_sample(seed: int) -> None:
    assert json_sample(SCHEMAS[1], seed) == json_sample(SCHEMAS[1], seed)
    assert regex_sample(r"[a-z]{8}", seed) == regex_sample(r"[a-z]{8}", seed)


def test_samples_are_ascii_whatever_the_schema_holds() -> None:
    assert all(json_sample({"enum": ["gr\u00fcn"]}, seed).isascii() for seed in range(3))


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", "[^\x20-\x7e]"])
def test_a_regular_expression_that_cannot_be_sampled_is_refused(pattern: str) -> None:
    with pytest.raises(Unsupported):
        regex_sample(pattern, 0)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "banana"},
        {"$ref": "http://elsewhere/schema"},
        {"$ref": "#/nowhere"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_cannot_be_sampled_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        json_sample(schema, 0)
