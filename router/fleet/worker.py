"""One worker: who it is, where it is, how it is. Its state changes only through fleet.registry and fleet.lease.

    starting ──probe answers──► ready ◄──answers again──► degraded
        └──────────────┬─────────┴──────────────────────────┘
                       ▼ drain                ▼ remove
                    draining ──nothing runs──► gone

`starting` and `degraded` workers get requests only when nobody is ready; `draining` and `gone` ones never. DP
ranks of one server are workers of their own: they share `base_url` and `server`, and `rank` tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

from router.fleet.kv_feed import FeedState
from router.fleet.server_info import ServerFacts
from router.types import LoadReport, WorkerId


class WorkerState(Enum):
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    GONE = "gone"


class Worker:
    """Satisfies `router.types.WorkerView`; policies see it only through that protocol.

    `rank` is None for a server that is one replica. `facts` is None until `/server_info` was read. `reports_cached`
    says whether its usage tells cached tokens, so that silence means zero; None while unknown. `models` is None until
    the worker told us which it serves; `model_cards` are its own entries of `/v1/models`.
    """

    __slots__ = (
        "base_url",
        "extra_headers",
        "facts",
        "facts_stale",
        "failures",
        "id",
        "in_flight",
        "kv_feed",
        "load",
        "model_cards",
        "models",
        "rank",
        "reports_cached",
        "server",
        "state",
        "state_reason",
        "state_since_s",
        "was_unreachable",
    )

    def __init__(self, server: str, base_url: str, *, now_s: float, rank: int | None = None) -> None:
        self.id = WorkerId(server if rank is None else f"{server}#{rank}")
        self.server = server
        self.rank = rank
        self.base_url = base_url
        self.extra_headers: Sequence[tuple[str, str]] = ()
        self.state = WorkerState.STARTING
        self.state_reason = "not probed yet"
        self.state_since_s = now_s
        self.in_flight = 0
        self.failures = 0
        self.was_unreachable = False
        self.load: LoadReport | None = None
        self.kv_feed: FeedState | None = None
        self.facts: ServerFacts | None = None
        self.facts_stale = False
        self.reports_cached: bool | None = None
        self.models: frozenset[str] | None = None
        self.model_cards: tuple[dict[str, Any], ...] = ()

    @property
    def takes_requests(self) -> bool:
        """Whether it is neither draining nor gone."""
        return self.state not in (WorkerState.DRAINING, WorkerState.GONE)

    def serves(self, model: str | None) -> bool:
        """Whether requests for this model may go there. SGLang addresses a LoRA adapter as `base:adapter`."""
        if model is None or self.models is None or model in self.models or model == "default":
            return True
        return model.partition(":")[0] in self.models
