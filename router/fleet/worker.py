"""One worker: who it is, where it is, how it is. Its state changes only through fleet.registry and fleet.lease.

    starting ──probe answers──► ready ◄──answers again──► degraded
        └──────────────┬─────────┴──────────────────────────┘
                       ▼ drain                ▼ remove
                    draining ──nothing runs──► gone

`starting` and `degraded` workers get requests only when nobody is ready, and the latter single ones on trial (breaker);
`draining` and `gone` ones never. What is known of a worker's health is its `vitals`. DP
ranks of one server are workers of their own: they share `base_url` and `server`, and `rank` tells them apart.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from router.fleet.breaker import BreakerConfig
from router.fleet.call_off import Waiting
from router.fleet.kv_feed import FeedState
from router.fleet.server_info import ServerFacts
from router.fleet.state import WorkerState
from router.fleet.vitals import HealthConfig, Vitals
from router.types import LoadReport, WorkerId

__all__ = ["Worker", "WorkerState"]


HISTORY = 20
"""Changes of state that are kept to be shown."""


class Worker:
    """Satisfies `router.types.WorkerView`; policies see it only through that protocol.

    `rank` is None for a server that is one replica. `facts` is None until `/server_info` was read. `reports_cached`
    says whether its usage tells cached tokens, so that silence means zero; None while unknown. `models` is None until
    the worker told us which it serves; `model_cards` are its own entries of `/v1/models`. `unanswered` are the requests
    there that have no first byte yet, oldest first; `held_until_s` is when it wants requests again (Retry-After),
    `warm_from_s` since when it gets a growing share. `heard_s` is when bytes last came from it. `elsewhere` is how many
    of its requests in flight are those of other processes of this router.
    """

    __slots__ = (
        "base_url",
        "elsewhere",
        "extra_headers",
        "facts",
        "facts_stale",
        "heard_s",
        "held_until_s",
        "history",
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
        "unanswered",
        "vitals",
        "warm_from_s",
        "was_unreachable",
    )

    def __init__(
        self,
        server: str,
        base_url: str,
        *,
        now_s: float,
        rank: int | None = None,
        health: HealthConfig | None = None,
        breaker: BreakerConfig | None = None,
    ) -> None:
        self.id = WorkerId(sys.intern(server if rank is None else f"{server}#{rank}"))  # a key of many tables
        self.server = server
        self.rank = rank
        self.base_url = base_url
        self.extra_headers: Sequence[tuple[str, str]] = ()
        self.state = WorkerState.STARTING
        self.state_reason = "not probed yet"
        self.state_since_s = now_s
        self.in_flight = 0
        self.elsewhere = 0
        self.vitals = Vitals(health or HealthConfig(), breaker or BreakerConfig(), now_s)
        self.unanswered: dict[Waiting, None] = {}
        self.history: deque[tuple[float, WorkerState, str]] = deque(maxlen=HISTORY)
        self.heard_s = float("-inf")
        self.held_until_s = float("-inf")
        self.warm_from_s: float | None = None
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

    @property
    def failures(self) -> int:
        """Failed probes in a row."""
        return self.vitals.failures

    def serves(self, model: str | None) -> bool:
        """Whether requests for this model may go there. SGLang addresses a LoRA adapter as `base:adapter`."""
        if model is None or self.models is None or model in self.models or model == "default":
            return True
        return model.partition(":")[0] in self.models
