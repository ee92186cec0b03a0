"""The states of a worker. A module of its own so that what judges a worker need not know what one is."""

from __future__ import annotations

from enum import Enum


class WorkerState(Enum):
    """See fleet.worker for the picture."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    GONE = "gone"
