"""Who a client is, without keeping what proves it: a hash of its API key. Pure. Called by request.head."""

from __future__ import annotations

from collections.abc import Mapping

from xxhash import xxh3_64_hexdigest


def client_of(headers: Mapping[bytes, bytes]) -> str | None:
    """16 hex digits that stand for the API key in `headers` (lower-case names); None where there is none."""
    key = headers.get(b"authorization") or headers.get(b"x-api-key")
    return xxh3_64_hexdigest(key.decode("latin-1")) if key else None
