"""Who sends a request, as far as limits and fairness go. A record; made by security.access."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """`name` is what logs and /queue call it, never its key. None means no limit; `models` None means all.

    `priority` -3 to 3: each step is worth four times the share of the queue. An `admin` may use the control routes and
    make no model calls.
    """

    name: str
    models: frozenset[str] | None = None
    rate_per_s: float | None = None
    concurrency: int | None = None
    priority: int = 0
    admin: bool = False

    def may_use(self, model: str | None) -> bool:
        """Whether requests for this model are its right; an adapter (`base:adapter`) needs its base or itself."""
        if self.models is None:
            return True
        return model is not None and (model in self.models or model.partition(":")[0] in self.models)


ANONYMOUS = Client(name="anonymous")
