"""The file of API keys: hashes, never keys. Reads, checks and makes entries; no network, no state.

    [[key]]
    name = "team-a"                # for people: logs, metrics and /queue show it
    sha256 = "9f86d081884c7d65..." # of the key, 64 hex digits
    models = ["qwen3-8b"]          # optional, as are the rest
    rate_per_s = 20
    concurrency = 64
    priority = 1                   # -3 to 3
    admin = false

Plain SHA-256 suffices because keys are 256 random bits: there is nothing to guess. Called by access and the command.
"""

from __future__ import annotations

import hashlib
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.security.client import Client

PREFIX = "tw-"
FIELDS = ("name", "sha256", "models", "rate_per_s", "concurrency", "priority", "admin")
_PARAM = "security.api_keys_file"


def new_key() -> str:
    """A key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def entry(key: str, client: Client) -> str:
    """The lines for the file."""
    lines = ["[[key]]", f'name = "{client.name}"', f'sha256 = "{hash_of(key)}"']
    if client.models is not None:
        lines.append("models = [" + ", ".join(f'"{model}"' for model in sorted(client.models)) + "]")
    if client.rate_per_s is not None:
        lines.append(f"rate_per_s = {client.rate_per_s:g}")
    if client.concurrency is not None:
        lines.append(f"concurrency = {client.concurrency}")
    if client.priority:
        lines.append(f"priority = {client.priority}")
    if client.admin:
        lines.append("admin = true")
    return "\n".join(lines) + "\n"


def read_keys_file(path: Path) -> dict[str, Client]:
    """Hash to client. Raises ConfigError, which names the file and the entry, never a hash."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{_PARAM}: {path} cannot be read ({error.strerror}).", param=_PARAM) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_PARAM}: {path} is not valid TOML ({type(error).__name__}).", param=_PARAM) from None
    tables = data.get("key", [])
    if set(data) - {"key"} or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{_PARAM}: {path} must hold [[key]] tables only.", param=_PARAM)
    if not tables:
        raise ConfigError(f"{_PARAM}: {path} holds no [[key]]: nobody could use the router.", param=_PARAM)
    found: dict[str, Client] = {}
    for number, table in enumerate(tables, 1):
        digest, client = _client(table, f"{_PARAM}: {path}, key {number}")
        if digest in found or any(client.name == other.name for other in found.values()):
            raise ConfigError(f"{_PARAM}: {path}, key {number} ({client.name}) is there twice.", param=_PARAM)
        found[digest] = client
    return found


def _client(table: Mapping[str, Any], where: str) -> tuple[str, Client]:
    def check(ok: bool, message: str) -> None:
        if not ok:
            raise ConfigError(f"{where}: {message}.", param=_PARAM)

    for field in table:
        check(field in FIELDS, f"unknown field {field!r}; there are {', '.join(FIELDS)}")
    name, digest = table.get("name"), table.get("sha256")
    check(isinstance(name, str) and is_name(name), "name must be 1 to 64 letters, digits, '-', '_' or '.'")
    check(isinstance(digest, str) and _is_hash(digest), "sha256 must be 64 hex digits (`trieway keys new` prints them)")
    models, rate = table.get("models"), table.get("rate_per_s")
    concurrency, priority, admin = table.get("concurrency"), table.get("priority", 0), table.get("admin", False)
    check(models is None or _are_names(models), "models must be a list of names")
    check(rate is None or (type(rate) in (int, float) and rate > 0), "rate_per_s must be a number above 0")
    check(concurrency is None or (type(concurrency) is int and concurrency > 0), "concurrency must be 1 or more")
    check(type(priority) is int and -3 <= priority <= 3, "priority must be a whole number from -3 to 3")
    check(isinstance(admin, bool), "admin must be true or false")
    return str(digest).lower(), Client(
        name=str(name),
        models=None if models is None else frozenset(models),
        rate_per_s=None if rate is None else float(rate),
        concurrency=concurrency,
        priority=priority,
        admin=admin,
    )


def is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and name.isascii() and all(c.isalnum() or c in "-_." for c in name)


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text.lower())


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)
