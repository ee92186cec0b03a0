"""Readers of request traces; a bad line raises TraceError, which names file, line and field.

Three formats, told apart by what is in the file: chat calls with their text (ours), Mooncake's blocks (JSON lines),
Azure's arrivals and lengths (CSV); each may be gzipped. A trace is read and checked whole before anything runs.
Not here: sending (drive.py), blocks to text (block_text.py), virtual time (replay.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import msgspec

from loadtests.load_request import LoadRequest
from loadtests.trace_file import TraceError, bad, decoded, lines, require, some

BLOCK_TOKENS = 512
"""Tokens of one block of a Mooncake trace (Mooncake's published format)."""
AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRequest:
    """One request of a trace without text. Two prompts share their first n blocks of 512 tokens exactly when their
    first n `blocks` are equal; the last block may be partial. Without `blocks` nothing is shared. `arrival_s` counts
    from the trace's own start.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    session_id: str | None = None
    turn: int = 0
    gap_s: float = 0.0
    workload: str = ""


Trace: TypeAlias = Sequence[LoadRequest] | Sequence[BlockRequest]


class _TextLine(msgspec.Struct):
    session_id: str
    turn: int
    arrival_ms: float
    messages: list[dict[str, object]]
    expected_output_tokens: int
    gap_ms: float = 0.0
    tools: str | list[dict[str, object]] | None = None
    workload: str = ""


class _BlockLine(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]
    session_id: int | str | None = None
    turn: int = 0


def read_trace(path: Path, *, limit: int | None = None, tools: Path | None = None) -> Trace:
    """The first `limit` requests of a trace in any format. Raises TraceError."""
    if ".csv" in path.suffixes:
        return read_azure(path, limit=limit)
    first = next(lines(path), (1, b""))[1]
    if b'"messages"' in first:
        return read_text(path, limit=limit, tools=tools)
    if b'"hash_ids"' in first:
        return read_blocks(path, limit=limit)
    raise TraceError(
        f"{path}:1: neither a chat trace (field 'messages') nor a Mooncake trace (field 'hash_ids'); "
        "Azure traces end in .csv or .csv.gz"
    )


def read_text(path: Path, *, limit: int | None = None, tools: Path | None = None) -> list[LoadRequest]:
    """Chat calls, one JSON object a line. A `tools` that is a name stands for a list in the file `tools`; where that
    is not given, in `NAME_tools.json` beside `NAME_anything.jsonl.gz`. Raises TraceError.
    """
    named = _ToolFile(path, tools)
    last_turn: dict[str, int] = {}
    requests = []
    for number, line in islice(decoded(path, _TextLine), limit):
        expected = last_turn.get(line.session_id, -1) + 1
        if line.turn != expected:
            raise bad(path, number, "turn", f"session {line.session_id!r} continues with {expected}, got {line.turn}")
        last_turn[line.session_id] = line.turn
        require(path, number, "messages", bool(line.messages), "must not be empty")
        require(path, number, "expected_output_tokens", line.expected_output_tokens >= 1, "must be at least 1")
        require(path, number, "arrival_ms", line.arrival_ms >= 0, "must not be negative")
        require(path, number, "gap_ms", line.gap_ms >= 0, "must not be negative")
        requests.append(
            LoadRequest(
                session_id=line.session_id,
                turn=line.turn,
                arrival_s=line.arrival_ms / 1000,
                gap_s=line.gap_ms / 1000,
                messages=line.messages,
                tools=named.find(line.tools, number) if isinstance(line.tools, str) else line.tools,
                max_tokens=line.expected_output_tokens,
                workload=line.workload,
            )
        )
    return some(path, requests)


def read_blocks(path: Path, *, limit: int | None = None) -> list[BlockRequest]:
    """A Mooncake trace: `timestamp` (ms), `input_length`, `output_length`, `hash_ids`; optionally `session_id` and
    `turn`. Raises TraceError.
    """
    requests = []
    for number, line in islice(decoded(path, _BlockLine), limit):
        require(path, number, "timestamp", line.timestamp >= 0, "must not be negative")
        require(path, number, "input_length", line.input_length >= 1, "must be at least 1")
        require(path, number, "output_length", line.output_length >= 0, "must not be negative")
        blocks = -(-line.input_length // BLOCK_TOKENS)
        if len(line.hash_ids) != blocks:
            wanted = f"{blocks} blocks of {BLOCK_TOKENS} for {line.input_length} tokens"
            raise bad(path, number, "hash_ids", f"expected {wanted}, got {len(line.hash_ids)}")
        requests.append(
            BlockRequest(
                arrival_s=line.timestamp / 1000,
                prompt_tokens=line.input_length,
                output_tokens=line.output_length,
                blocks=tuple(line.hash_ids),
                session_id=None if line.session_id is None else str(line.session_id),
                turn=line.turn,
            )
        )
    return some(path, requests)


def read_azure(path: Path, *, limit: int | None = None) -> list[BlockRequest]:
    """An Azure LLM inference trace: TIMESTAMP, ContextTokens, GeneratedTokens. Arrivals count from its first row.
    Raises TraceError.
    """
    rows = ((number, line.decode("utf-8-sig", "replace").strip().split(",")) for number, line in lines(path))
    number, columns = next(rows, (1, []))
    for name in AZURE_COLUMNS:
        require(path, number, name, name in columns, f"no such column; an Azure trace has {', '.join(AZURE_COLUMNS)}")
    requests: list[BlockRequest] = []
    start: datetime | None = None
    for number, cells in islice(rows, limit):
        row = dict(zip(columns, cells, strict=False))
        at = _timestamp(path, number, row)
        start = at if start is None else start
        requests.append(
            BlockRequest(
                arrival_s=max(0.0, (at - start).total_seconds()),
                prompt_tokens=_count(path, number, row, "ContextTokens"),
                output_tokens=_count(path, number, row, "GeneratedTokens"),
            )
        )
    return some(path, requests)


class _ToolFile:
    """Tool lists by name, read from their file when the first is asked for."""

    def __init__(self, trace: Path, given: Path | None) -> None:
        self._trace = trace
        self._path = given or trace.with_name(re.split(r"[_.]", trace.name, maxsplit=1)[0] + "_tools.json")
        self._lists: Mapping[str, list[dict[str, object]]] | None = None

    def find(self, name: str, number: int) -> list[dict[str, object]]:
        if self._lists is None:
            try:
                self._lists = msgspec.json.decode(self._path.read_bytes(), type=dict[str, list[dict[str, object]]])
            except OSError as error:
                raise bad(
                    self._trace, number, "tools", f"{name!r} should be in {self._path}: {error.strerror}"
                ) from error
            except msgspec.DecodeError as error:
                raise TraceError(f"{self._path}: {error}") from error
        if name not in self._lists:
            raise bad(self._trace, number, "tools", f"{name!r} is not in {self._path} (it has {sorted(self._lists)})")
        return self._lists[name]


def _timestamp(path: Path, number: int, row: Mapping[str, str]) -> datetime:
    text = row.get("TIMESTAMP", "")
    try:
        # Azure writes seven decimals of a second; Python 3.11 reads any number of them and keeps six.
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise bad(path, number, "TIMESTAMP", f"expected a date and time, got {text!r}") from error


def _count(path: Path, number: int, row: Mapping[str, str], name: str) -> int:
    text = row.get(name, "")
    if not text.isdecimal():
        raise bad(path, number, name, f"expected a whole number, got {text!r}")
    return int(text)
