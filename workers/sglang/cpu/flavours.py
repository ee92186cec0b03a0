"""The servers that the contract suite wants, as flags: `open` as an operator behind a router would start one, `guarded`
with keys, two data-parallel ranks and what is off by default left off, `embedding` with a model that only embeds.

Read by server.py, and by tests/contract, which starts simulated servers of the same kinds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

API_KEY = "contract-key"
ADMIN_API_KEY = "contract-admin-key"
MODEL = "contract"
"""The served model name of every flavour."""

KV_CAPACITY_TOKENS = 8192
"""Small, so that a test can fill the cache in seconds; every flavour, every rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """Flags that SGLang and the simulated worker share, and `reports`: cache report and metrics."""

    name: str
    page_size: int = 1
    dp_size: int = 1
    kv_events: bool = False
    keys: bool = False
    reports: bool = False
    embedding: bool = False

    @property
    def port_count(self) -> int:
        """How many consecutive free ports `flags` wants: one to publish and one to replay for each rank."""
        return 2 * self.dp_size if self.kv_events else 0

    def shared_flags(self, first_port: int) -> list[str]:
        """Flags of both kinds of server; `first_port` is the first of `port_count` free ports."""
        flags = ["--page-size", str(self.page_size), "--dp-size", str(self.dp_size)]
        if self.keys:
            flags += ["--api-key", API_KEY, "--admin-api-key", ADMIN_API_KEY]
        if self.kv_events:
            flags += ["--kv-events-config", kv_events_config(first_port, first_port + self.dp_size)]
        return flags

    def sglang_flags(self, first_port: int) -> list[str]:
        """Arguments for SGLang's launch_server, apart from the model, the address and what the CPU needs."""
        flags = [*self.shared_flags(first_port), "--served-model-name", MODEL]
        flags += ["--max-total-tokens", str(KV_CAPACITY_TOKENS)]
        flags += ["--constrained-json-disable-any-whitespace"]  # a model of noise would fill JSON with blanks for ever
        if self.reports:
            flags += ["--enable-cache-report", "--enable-metrics"]
        if self.embedding:
            flags += ["--is-embedding"]
        return flags


OPEN = Flavour(name="open", page_size=16, kv_events=True, reports=True)
GUARDED = Flavour(name="guarded", dp_size=2, kv_events=True, keys=True)
EMBEDDING = Flavour(name="embedding", embedding=True)
FLAVOURS: Mapping[str, Flavour] = MappingProxyType({flavour.name: flavour for flavour in (OPEN, GUARDED, EMBEDDING)})


def kv_events_config(publish_port: int, replay_port: int) -> str:
    """With an address instead of the wildcard, SGLang's publisher connects where it should bind (seen on 0.5.21)."""
    return json.dumps(
        {
            "publisher": "zmq",
            "endpoint": f"tcp://*:{publish_port}",
            "replay_endpoint": f"tcp://*:{replay_port}",
        }
    )
