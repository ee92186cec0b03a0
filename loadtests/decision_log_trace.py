"""Reads a router's decision log as traffic for replay: yesterday's requests through tomorrow's policy.

A log is a file or a folder of them (`decisions-*.jsonl.zst`, or the same lines unpacked as .jsonl). It says when each
request came, its prompt as chained block hashes, how long prompt and answer were, and what really happened. A line that
cannot be used raises TraceError, which names file, line and field; only a last line that was cut short, as a router
leaves it that still writes or was killed, is left out with a warning. Not here: replay itself (replay.py).

A unit of a prompt (router.prefix.block_sizes) is one engine page. Its size in tokens is what workers reported, averaged
over the log: the router's own `block_tokens` is an estimate from bytes. In logs of version 1 every block was one unit.
"""

from __future__ import annotations

import io
import logging
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from loadtests.replay_source import ReplayRequest, ReplayTraffic
from loadtests.trace_file import TraceError, bad
from router.prefix.block_sizes import blocks_of, units_of, units_until
from router.types import PromptKey

log = logging.getLogger(__name__)

VERSION = 2
"""The newest schema this reader understands (docs/decision-log.md)."""
HASH_DIGITS = 16
PATTERN = "decisions-*.jsonl.zst"


class _Head(msgspec.Struct):
    trieway_decision_log: int
    block_bytes: int = 0


class _Line(msgspec.Struct):
    request_id: str
    at_unix_s: float
    endpoint: str
    status: int
    e2e_s: float
    policy: str
    model: str | None = None
    session: str | None = None
    max_output_tokens: int | None = None
    blocks: str = ""
    block_tokens: float | None = None
    key_tokens: float | None = None
    arm: str | None = None
    worker: str | None = None
    match_tokens: float | None = None
    expected_ttft_s: float | None = None
    error: str | None = None
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request as the log has it. `arrival_s` counts from the first request of the log."""

    arrival_s: float
    request_id: str
    endpoint: str
    model: str | None
    session_id: str | None
    key: PromptKey
    max_output_tokens: int | None
    policy: str
    arm: str | None
    worker: str | None
    status: int
    error: str | None
    ttft_s: float | None
    e2e_s: float
    expected_ttft_s: float | None
    match_tokens: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None


def is_decision_log(path: Path) -> bool:
    """Whether this looks like one: a folder with log files, or a file that begins with the log's first line."""
    if path.is_dir():
        return any(path.glob(PATTERN))
    try:
        return next(_lines(path), (1, b""))[1].startswith(b'{"trieway_decision_log"')
    except TraceError:
        return path.name.endswith(".jsonl.zst")


def read_decision_log(path: Path, *, limit: int | None = None) -> list[LoggedRequest]:
    """The first `limit` requests in order of arrival. Requests that were refused before they had a prompt key are left
    out. Raises TraceError.
    """
    files = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
    if not files:
        raise TraceError(f"{path}: no decision log here; its files are named {PATTERN}")
    first, lines = _read_file(files[0])
    for file in files[1:]:
        head, found = _read_file(file)
        for field in ("trieway_decision_log", "block_bytes"):
            here, there = getattr(head, field), getattr(first, field)
            if here != there:
                raise bad(file, 1, field, f"{here} here, {there} in the files before: replay them one by one")
        lines += found
    if not lines:
        raise TraceError(f"{path}: holds no request")
    lines.sort(key=lambda line: line.at_unix_s)
    version = first.trieway_decision_log
    return [_request(line, lines[0].at_unix_s, version) for line in lines[:limit]]


def logged_traffic(requests: list[LoggedRequest], name: str) -> ReplayTraffic:
    """Logged requests, ready for replay. Pages of prompts are shared exactly where block hashes are equal."""
    reported = [one for one in requests if one.prompt_tokens is not None]
    estimated = sum(one.key.prompt_tokens for one in reported)
    ratio = sum(one.prompt_tokens or 0 for one in reported) / estimated if estimated else 1.0
    unit_tokens = sum(one.key.unit_tokens for one in requests) / len(requests)
    page_tokens = max(1, round(unit_tokens * ratio))
    names = _PageNames()
    return ReplayTraffic(
        name=name,
        requests=[_replayed(one, ratio, page_tokens, names) for one in requests],
        page_tokens=page_tokens,
    )


class _PageNames:
    """Numbers for the pages of blocks, the same for the same block, and for pages that nothing shares."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}
        self._next = 1

    def of(self, block: int, pages: int) -> range:
        first = self._first.get(block)
        if first is None:
            first = self._first[block] = self.fresh(pages).start
        return range(first, first + pages)

    def fresh(self, pages: int) -> range:
        self._next += pages
        return range(self._next - pages, self._next)


def _replayed(one: LoggedRequest, ratio: float, page_tokens: int, names: _PageNames) -> ReplayRequest:
    depth = len(one.key.blocks)
    prompt_tokens = max(1, units_until(depth) * page_tokens, round(one.key.prompt_tokens * ratio))
    prompt_tokens = min(prompt_tokens, units_until(depth + 1) * page_tokens - 1) if depth else prompt_tokens
    output_tokens = one.completion_tokens or one.max_output_tokens or 1
    pages = array("I")
    for end, block in enumerate(one.key.blocks, start=1):
        pages.extend(names.of(block, units_of(end)))
    pages.extend(names.fresh(max(0, (prompt_tokens + output_tokens) // page_tokens - len(pages))))
    return ReplayRequest(
        arrival_s=one.arrival_s,
        key=one.key,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        pages=pages,
        session_id=one.session_id,
        max_output_tokens=one.max_output_tokens,
        workload=one.endpoint,
    )


def _request(line: _Line, start_s: float, version: int) -> LoggedRequest:
    hashes = struct.unpack(f">{len(line.blocks) // HASH_DIGITS}Q", bytes.fromhex(line.blocks))
    blocks = blocks_of(hashes) if version == 1 else list(hashes)
    return LoggedRequest(
        arrival_s=line.at_unix_s - start_s,
        request_id=line.request_id,
        endpoint=line.endpoint,
        model=line.model,
        session_id=line.session,
        key=PromptKey(
            blocks=blocks, unit_tokens=line.block_tokens or 0.0, prompt_tokens=line.key_tokens or 0.0
        ),
        max_output_tokens=line.max_output_tokens,
        policy=line.policy,
        arm=line.arm,
        worker=line.worker,
        status=line.status,
        error=line.error,
        ttft_s=line.ttft_s,
        e2e_s=line.e2e_s,
        expected_ttft_s=line.expected_ttft_s,
        match_tokens=line.match_tokens,
        prompt_tokens=line.prompt_tokens,
        cached_tokens=line.cached_tokens,
        completion_tokens=line.completion_tokens,
    )


def _read_file(path: Path) -> tuple[_Head, list[_Line]]:
    """The first line of one file and its requests that have a prompt key."""
    decoder = msgspec.json.Decoder(_Line)
    head: _Head | None = None
    found: list[_Line] = []
    for number, text in _lines(path):
        if head is None:
            head = _head(path, number, text)
            continue
        try:
            line = decoder.decode(text)
        except msgspec.ValidationError as error:
            raise TraceError(f"{path}:{number}: {error}") from error
        except msgspec.DecodeError as error:
            if not text.endswith(b"\n"):
                log.warning("%s:%d is cut short and left out: its router was killed, or still writes it", path, number)
                continue
            raise TraceError(f"{path}:{number}: not JSON: {error}") from error
        _check(path, number, line)
        if line.key_tokens is not None:
            found.append(line)
    if head is None:
        raise TraceError(f"{path}: is empty")
    return head, found


def _head(path: Path, number: int, text: bytes) -> _Head:
    try:
        head = msgspec.json.decode(text, type=_Head)
    except msgspec.DecodeError as error:
        raise TraceError(f"{path}:{number}: not the first line of a decision log: {error}") from error
    if head.trieway_decision_log > VERSION:
        raise bad(
            path,
            number,
            "trieway_decision_log",
            f"version {head.trieway_decision_log}, this Trieway reads up to {VERSION}: use a newer one",
        )
    return head


def _check(path: Path, number: int, line: _Line) -> None:
    if len(line.blocks) % HASH_DIGITS:
        raise bad(path, number, "blocks", f"expected {HASH_DIGITS} hex digits per block, got {len(line.blocks)} in all")
    try:
        bytes.fromhex(line.blocks)
    except ValueError as error:
        raise bad(path, number, "blocks", str(error)) from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, unpacked. Raises TraceError where the file is damaged."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_unpacked(path, file), start=1):
                yield number, line
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    except zstandard.ZstdError as error:
        raise TraceError(f"{path}:{number + 1}: the compressed data is damaged from here on: {error}") from error


def _unpacked(path: Path, file: BinaryIO) -> Iterator[bytes]:
    if path.suffix != ".zst":
        return iter(file)
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return iter(io.BufferedReader(reader))
