"""The file that keeps state: a mark, a version, a checksum, and msgpack. Written beside and renamed, so never half.

What cannot be read is no state: `read` says why, in words for a log. Called by keeper.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from xxhash import xxh3_64_digest

MARK = b"TRIEWAY-STATE\n"
VERSION = 1
MAX_BYTES = 2**31


class Unusable(Exception):
    """There is no state in the file; the message says why."""


def write(path: Path, payload: dict[str, Any]) -> None:
    """Replace the file. Raises OSError. Readable by its owner only: hashes of prompts stand in it."""
    body = msgspec.msgpack.encode({"version": VERSION, **payload})
    beside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(MARK + xxh3_64_digest(body) + body)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read(path: Path, *, now_unix_s: float, max_age_s: float) -> dict[str, Any]:
    """What was written. Raises Unusable; FileNotFoundError where there is no file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unusable("it is too large")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable(f"it cannot be read ({error.strerror})") from error
    head, body = raw[: len(MARK) + 8], raw[len(MARK) + 8 :]
    if not head.startswith(MARK) or head[len(MARK) :] != xxh3_64_digest(body):
        raise Unusable("it is damaged")
    try:
        found = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unusable("it is damaged") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise Unusable("it is of another version of Trieway")
    saved_s = found.get("saved_unix_s")
    if not isinstance(saved_s, float) or not 0 <= now_unix_s - saved_s <= max_age_s:
        raise Unusable(f"it is older than {max_age_s:g} s (state.max_age_s), or from the future")
    return found
