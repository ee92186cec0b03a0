"""What a server says of itself in `/server_info`, read leniently: fields differ between SGLang releases. Pure.

Called by fleet.health when a worker becomes ready. Nothing here is needed to route; each fact that is missing or of
the wrong type is None, and what depends on it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_64_hexdigest

IDENTITY = ("launch_command", "random_seed", "startup_time", "version", "port")
"""Fields that a restarted process answers differently: SGLang draws its random_seed anew on every start unless it was
given, and measures its startup_time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEventsAt:
    """Where a server publishes KV events: rank r at `port` + r. `host` may be a wildcard: then it is the server's own.

    `replay_port` is None where the server does not say (SGLang before 0.5.23) or has none.
    """

    host: str
    port: int
    topic: str
    block_tokens: int
    replay_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One server's own facts. `capacity_tokens` is the KV cache of one rank; `identity` changes with a restart."""

    identity: str
    version: str | None = None
    dp_size: int = 1
    page_tokens: int | None = None
    capacity_tokens: int | None = None
    max_running: int | None = None
    cache_report: bool | None = None
    streams_usage: bool = False
    tokenizer_path: str | None = None
    kv_events: KvEventsAt | None = None

    @property
    def release(self) -> tuple[int, ...] | None:
        """(0, 5, 21) of "0.5.21" or "0.5.21.post1"; None of anything else, such as a development build."""
        parts = (self.version or "").split(".")[:3]
        return tuple(map(int, parts)) if len(parts) == 3 and all(part.isdigit() for part in parts) else None


def facts_of(info: Mapping[str, Any]) -> ServerFacts:
    """The facts in the JSON object of `/server_info`. Never raises."""
    return ServerFacts(
        identity=xxh3_64_hexdigest(repr([info.get(name) for name in IDENTITY])),
        version=_text(info.get("version")),
        dp_size=_count(info.get("dp_size")) or 1,
        page_tokens=_count(info.get("page_size")),
        capacity_tokens=_count(info.get("max_total_num_tokens")),
        max_running=_count(info.get("max_running_requests")),
        cache_report=_flag(info.get("enable_cache_report")),
        streams_usage=_flag(info.get("stream_response_default_include_usage")) is True,
        tokenizer_path=_text(info.get("tokenizer_path")) or _text(info.get("model_path")),
        kv_events=_kv_events(info.get("kv_events")),
    )


def _kv_events(found: Any) -> KvEventsAt | None:
    if not isinstance(found, Mapping) or found.get("publisher") != "zmq":
        return None
    host, port = _text(found.get("endpoint_host")), _count(found.get("endpoint_port_base"))
    block_tokens = _count(found.get("block_size"))
    if host is None or port is None or block_tokens is None:
        return None
    topic = found.get("topic")
    return KvEventsAt(
        host=host,
        port=port,
        topic=topic if isinstance(topic, str) else "",
        block_tokens=block_tokens,
        replay_port=_count(found.get("replay_endpoint_port_base")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
