"""Answers that obey a constraint: a sample that a JSON schema accepts, or that a regular expression matches.

Deterministic from a seed. Covers what people constrain output with: JSON schema's types, enum, const, anyOf, $ref,
length and number bounds; regular expressions without look-around. Raises Unsupported for the rest; callers then refuse
the request as SGLang refuses a grammar it cannot compile. Called by worker.py and tool_calls.py.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]  # the parser of `re` itself; it has no public name
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

MAX_DEPTH = 12  # nesting of a sampled value; beyond it optional parts are left out
_REPEAT_LIMIT = 8  # how often an unbounded repetition repeats at most

_WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "lagoon")


class Unsupported(ValueError):
    """The constraint uses something that cannot be sampled here."""


def json_sample(schema: dict[str, Any], seed: int) -> str:
    """A compact JSON text that `schema` accepts. Raises Unsupported."""
    rng = random.Random(seed)
    value = _value(schema, schema, rng, 0)
    return json.dumps(value, separators=(",", ":"))  # ASCII, as the writer needs


def regex_sample(pattern: str, seed: int) -> str:
    """A text that `pattern` matches whole. Raises Unsupported."""
    try:
        parsed = sre_parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise Unsupported(f"cannot parse the regular expression: {error}") from error
    return _matching(parsed, random.Random(seed), {})


def _value(schema: Any, root: dict[str, Any], rng: random.Random, depth: int) -> Any:
    if schema is True or schema == {}:
        return rng.choice(_WORDS)
    if not isinstance(schema, dict):
        raise Unsupported("a schema must be an object")
    if depth > 4 * MAX_DEPTH:
        raise Unsupported("the schema nests without end")
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    if "$ref" in schema:
        return _value(_resolve(schema["$ref"], root), root, rng, depth + 1)
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            branches = schema[key]
            return _value(branches[-1] if depth > MAX_DEPTH else rng.choice(branches), root, rng, depth + 1)
    if schema.get("allOf"):
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            merged = _merged(merged, _resolve(part["$ref"], root) if "$ref" in part else part)
        return _value(merged, root, rng, depth + 1)
    return _typed(schema, root, rng, depth)


def _typed(schema: dict[str, Any], root: dict[str, Any], rng: random.Random, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "object":
        properties = schema.get("properties", {})
        required = set(schema.get("required", properties))
        names = [name for name in properties if name in required or (depth < MAX_DEPTH and rng.random() < 0.5)]
        return {name: _value(properties[name], root, rng, depth + 1) for name in names}
    if kind == "array":
        low = schema.get("minItems", 1)
        count = min(low + rng.randrange(3), schema.get("maxItems", low + 2)) if depth < MAX_DEPTH else low
        items = schema.get("items", True)
        return [_value(items, root, rng, depth + 1) for _ in range(count)]
    if kind == "string":
        return _string(schema, rng)
    if kind == "integer":
        low, high = _bounds(schema, 1)
        return rng.randint(int(low), max(int(low), int(high)))
    if kind == "number":
        low, high = _bounds(schema, 0.01)
        return round(rng.uniform(low, max(low, high)), 2) if high - low > 0.02 else low
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    raise Unsupported(f"unknown type {kind!r} in the schema")


def _string(schema: dict[str, Any], rng: random.Random) -> str:
    if "pattern" in schema:
        return regex_sample(schema["pattern"].removeprefix("^").removesuffix("$"), rng.randrange(1 << 30))
    text = " ".join(rng.choice(_WORDS) for _ in range(1 + rng.randrange(3)))
    low, high = schema.get("minLength", 0), schema.get("maxLength", 1 << 30)
    while len(text) < low:
        text += " " + rng.choice(_WORDS)
    return text[:high]


def _bounds(schema: dict[str, Any], step: float) -> tuple[float, float]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -step) + step)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100 + step) - step)
    return low, high


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    if not reference.startswith("#"):
        raise Unsupported(f"only references inside the schema can be followed, not {reference!r}")
    found: Any = root
    for part in reference.lstrip("#/").split("/") if reference != "#" else ():
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise Unsupported(f"the schema has no {reference!r}")
        found = found[name]
    return found


def _merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    merged = {**left, **right}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**left["properties"], **right["properties"]}
    if "required" in left and "required" in right:
        merged["required"] = [*left["required"], *right["required"]]
    return merged


def _matching(parsed: Iterable[Any], rng: random.Random, groups: dict[int, str]) -> str:
    return "".join(_one(op, argument, rng, groups) for op, argument in parsed)


def _one(op: Any, argument: Any, rng: random.Random, groups: dict[int, str]) -> str:
    """A text for one node of a parsed expression."""
    if op is sre.LITERAL:
        return chr(argument)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        low, high, inner = argument
        count = rng.randint(low, min(int(high), max(low, _REPEAT_LIMIT)))
        return "".join(_matching(inner, rng, groups) for _ in range(count))
    if op is sre.SUBPATTERN:
        number, _, _, inner = argument
        text = _matching(inner, rng, groups)
        if number is not None:
            groups[number] = text
        return text
    if op is sre.BRANCH:
        return _matching(rng.choice(argument[1]), rng, groups)
    if op is sre.IN:
        return _class_member(argument, rng)
    if op in (sre.ANY, sre.NOT_LITERAL):
        return rng.choice("abcdefghij") if op is sre.ANY or argument > 127 else rng.choice(_others({argument}))
    if op is sre.AT:
        return ""
    if op is sre.GROUPREF:
        return groups.get(argument, "")
    if op is sre.ATOMIC_GROUP:
        return _matching(argument, rng, groups)
    raise Unsupported(f"the regular expression uses {str(op).lower()}, which cannot be sampled")


def _class_member(items: list[Any], rng: random.Random) -> str:
    members: set[int] = set()
    negated = False
    for op, argument in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            members.add(argument)
        elif op is sre.RANGE:
            members.update(range(argument[0], min(argument[1], argument[0] + 255) + 1))
        elif op is sre.CATEGORY:
            members.update(_category(argument))
    if not members and not negated:
        raise Unsupported("the regular expression has an empty character class")
    return rng.choice(_others(members)) if negated else chr(rng.choice(sorted(members)))


def _others(excluded: set[int]) -> str:
    allowed = "".join(chr(code) for code in range(32, 127) if code not in excluded)
    if not allowed:
        raise Unsupported("the regular expression excludes every printable character")
    return allowed


def _category(category: Any) -> Iterable[int]:
    pattern = {
        sre.CATEGORY_DIGIT: r"\d",
        sre.CATEGORY_NOT_DIGIT: r"\D",
        sre.CATEGORY_SPACE: r" ",
        sre.CATEGORY_NOT_SPACE: r"\S",
        sre.CATEGORY_WORD: r"\w",
        sre.CATEGORY_NOT_WORD: r"\W",
    }[category]
    return [code for code in range(32, 127) if re.match(pattern, chr(code))]
