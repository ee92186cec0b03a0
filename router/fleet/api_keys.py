"""API keys of workers, read from files so that they stand in no command line and no configuration.

A key is sent to the workers it was given for and to nobody else: not shown, not logged, not in any error. Called by
app at the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from router.errors import ConfigError

Header = tuple[str, str]


def read_keys(specs: Iterable[str]) -> dict[str | None, str]:
    """`FILE` (for every configured worker, under None) and `NAME=FILE` (for that one) to keys. Raises ConfigError."""
    keys: dict[str | None, str] = {}
    for spec in specs:
        name, equals, file = spec.partition("=")
        named = name if equals and "/" not in name else None
        if named in keys:
            raise ConfigError(f"worker_api_key_file: two files for {named or 'all workers'}.", param=_PARAM)
        keys[named] = _read(Path(file if named is not None else spec))
    return keys


def check_names(keys: Iterable[str | None], workers: Sequence[str]) -> None:
    """Raises ConfigError for a key of a worker that is not configured."""
    for name in keys:
        if name is not None and name not in workers:
            known = ", ".join(workers) or "none"
            raise ConfigError(f"worker_api_key_file: there is no worker {name!r}. Workers: {known}.", param=_PARAM)


def authorization(key: str | None) -> tuple[Header, ...]:
    """The header that carries the key; none without a key."""
    return () if key is None else (("authorization", f"Bearer {key}"),)


def is_key(key: str) -> bool:
    """Whether this can stand in a header."""
    return 0 < len(key) <= 1024 and key.isascii() and key.isprintable() and " " not in key


_PARAM = "worker_api_key_file"


def _read(file: Path) -> str:
    try:
        key = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = type(error).__name__
        raise ConfigError(f"worker_api_key_file: {file} cannot be read ({why}).", param=_PARAM) from None
    if not is_key(key):
        raise ConfigError(f"worker_api_key_file: {file} does not hold one key of printable characters.", param=_PARAM)
    return key
