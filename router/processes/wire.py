"""What processes of one router tell each other of requests: records that msgspec packs and builds in C. No behaviour.

All processes run the same version, so nothing here has to be understood by another. An outcome repeats neither the
request nor the decision that its Dispatched told. Times are those of the machine's monotonic clock, which all share.
Written and read by replica and elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

from router.telemetry.recent_requests import Weighing
from router.types import (
    AttemptFailed,
    CacheCleared,
    Dispatched,
    FirstToken,
    LoadReported,
    Outcome,
    RequestId,
    WorkerId,
)


class Sent(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """A request went to a worker, maybe as its trial."""

    event: Dispatched
    on_trial: bool


class Began(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    event: FirstToken


class Failed(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    event: AttemptFailed


class Reported(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    event: LoadReported


class Cleared(msgspec.Struct, array_like=True, tag=4, frozen=True, gc=False):
    event: CacheCleared


class Ended(msgspec.Struct, array_like=True, tag=5, frozen=True, gc=False):
    """`finished_s`: when its worker was done, if it had one. `known`: key and decision are those of its last Sent."""

    outcome: Outcome
    finished_s: float | None
    known: bool


class Explained(msgspec.Struct, array_like=True, tag=6, frozen=True, gc=False):
    """How workers were weighed, for /explain."""

    request_id: RequestId
    weighing: Weighing


Told = Sent | Began | Failed | Reported | Cleared | Ended | Explained


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What one process tells at once; None where there is nothing to say.

    `flight` is (requests in flight, when it last sent bytes, until when it wants no more) by worker. `limits` is what
    SharedAdmission tells, `addresses` connections by address, `open` the ids of requests that have not ended.
    `members` and `rows` are the leader's table of workers. `figures`: counters, queue and held requests.
    """

    events: list[Told]
    flight: dict[str, tuple[int, float, float]]
    limits: tuple[int, int, dict[str, int], dict[str, tuple[int, float]]] | None = None
    addresses: dict[str, int] | None = None
    open: list[str] | None = None
    rows: list[Any] | None = None
    members: list[WorkerId] | None = None
    figures: Any = None

    def says_nothing(self) -> bool:
        rest = (self.limits, self.addresses, self.open, self.rows, self.figures)
        return not self.events and not self.flight and all(each is None for each in rest)


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Batch).decode
