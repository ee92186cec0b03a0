"""The tables of a scenario as frozen records, each of which refuses values that cannot work.

docs/loadtests.md describes the keys. Called by scenario.py, which reads them; goodput.py and the drivers use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadtests.measures import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """Where the traffic comes from: a `kind` with its sizes in `sizes`, or a `trace`.

    `parts` are the kinds of a mix, each with `weight` and sizes. `rate` multiplies how often sessions arrive,
    `max_in_flight` bounds what is sent at once.
    """

    kind: str = ""
    trace: str = ""
    tools: str = ""
    limit: int | None = None
    sessions: int = 100
    sessions_per_s: float = 4.0
    rate: float = 1.0
    max_in_flight: int = 512
    timeout_s: float = 600.0
    parts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    sizes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.kind) != bool(self.trace), "give either 'kind' or 'trace'")
        require(self.limit is None or self.limit >= 1, "'limit' must be at least 1")
        require(self.sessions >= 1, "'sessions' must be at least 1")
        require(self.max_in_flight >= 1, "'max_in_flight' must be at least 1")
        for name in ("sessions_per_s", "rate", "timeout_s"):
            require(getattr(self, name) > 0, f"'{name}' must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """What the policies run on: simulated workers that are started, or running ones at `worker_urls`; a router is
    started before them for each policy. Or `endpoints`, routers that run already, by name: then they are what is
    compared, and `worker_urls` only says whose caches are emptied before each run.
    """

    workers: int = 4
    kv_capacity_tokens: int | None = None
    speed: float = 1.0
    worker_options: tuple[str, ...] = ()
    router_options: tuple[str, ...] = ()
    ready_within_s: float = 60.0
    worker_urls: tuple[str, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        real = bool(self.worker_urls or self.endpoints)
        require(1 <= self.workers <= 64, "'workers' must be between 1 and 64")
        require(self.speed > 0, "'speed' must be above 0")
        require(not real or self.speed == 1, "'speed' needs simulated workers, not 'worker_urls' or 'endpoints'")
        require(not real or self.kv_capacity_tokens is None, "'kv_capacity_tokens' is for simulated workers")
        for url in (*self.worker_urls, *self.endpoints.values()):
            require(url.startswith(("http://", "https://")), f"{url!r} is not a URL like http://127.0.0.1:30000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSpec:
    """Limits of one answer in seconds, and the `share` of requests that should meet them."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    share: float = 0.99

    def __post_init__(self) -> None:
        limits = (self.ttft_s, self.tpot_s, self.e2e_s)
        require(any(limit is not None for limit in limits), "give 'ttft_s', 'tpot_s' or 'e2e_s'")
        require(all(limit is None or limit > 0 for limit in limits), "limits must be above 0")
        require(0 < self.share <= 1, "'share' must be above 0 and at most 1")

    @property
    def limits(self) -> Objective:
        return Objective(ttft_s=self.ttft_s, tpot_s=self.tpot_s, e2e_s=self.e2e_s)

    def __str__(self) -> str:
        named = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2E", self.e2e_s))
        return ", ".join(f"{name} <= {limit:g} s" for name, limit in named if limit is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputSpec:
    """How the search for the highest rate goes; see goodput.py. Rates multiply the workload's own."""

    objective: str = ""
    start_rate: float = 1.0
    tolerance: float = 0.1
    confirmations: int = 1
    max_trials: int = 16
    max_minutes: float = 20.0

    def __post_init__(self) -> None:
        require(self.start_rate > 0, "'start_rate' must be above 0")
        require(self.tolerance > 0, "'tolerance' must be above 0")
        require(self.confirmations >= 0, "'confirmations' must not be negative")
        require(self.max_trials >= 2, "'max_trials' must be at least 2")
        require(self.max_minutes > 0, "'max_minutes' must be above 0")


def require(ok: bool, message: str) -> None:
    """For `__post_init__`: raises ValueError, which the reader reports with the table's name."""
    if not ok:
        raise ValueError(message)
