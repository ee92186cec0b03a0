"""Lines of a trace file, gzipped or not, checked against a record type; and the one error of an unusable trace.

Called by traces.py. Not here: what the fields mean.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

import msgspec

_Line = TypeVar("_Line")
_Request = TypeVar("_Request")


class TraceError(Exception):
    """A trace that cannot be used. Its message names file, line and field, and says what was expected."""


def decoded(path: Path, kind: type[_Line]) -> Iterator[tuple[int, _Line]]:
    """Numbered lines as records of `kind`. Raises TraceError."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in lines(path):
        try:
            yield number, decoder.decode(line)
        except msgspec.ValidationError as error:
            raise TraceError(f"{path}:{number}: {_with_field(str(error))}") from error
        except msgspec.DecodeError as error:
            raise TraceError(f"{path}:{number}: not JSON: {error}") from error


def _with_field(message: str) -> str:
    """msgspec's message with the field in front: "Expected `int`, got `str` - at `$.turn`" -> "field 'turn': ..."."""
    found = re.search(r" - at `\$\.?([^`]*)`$", message) or re.search(r"missing required field `([^`]*)`", message)
    return f"field '{found.group(1)}': {message.split(' - at ')[0]}" if found else message


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank. Raises TraceError."""
    with _open(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
        except (EOFError, OSError) as error:  # a gzip file that is cut short or none
            raise TraceError(f"{path}: {error}") from error


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error


def require(path: Path, number: int, name: str, ok: bool, message: str) -> None:
    """Raises TraceError unless `ok`."""
    if not ok:
        raise bad(path, number, name, message)


def bad(path: Path, number: int, name: str, message: str) -> TraceError:
    """The error of one field of one line."""
    return TraceError(f"{path}:{number}: field '{name}': {message}")


def some(path: Path, requests: list[_Request]) -> list[_Request]:
    """`requests`. Raises TraceError when there are none."""
    if not requests:
        raise TraceError(f"{path}: holds no request")
    return requests
