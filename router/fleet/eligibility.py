"""Which of the ready workers may take the next request while some need care. Pure. Called by registry.

Three kinds: one that asked for a pause (Retry-After) is left out; one that is warming gets a growing share of what the
others have in flight; one whose breaker is open gets a single request on trial now and then. If nobody else is left,
they are used all the same: a slow answer is better than none.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.fleet.state import WorkerState
from router.fleet.worker import Worker

FIRST_SHARE = 0.1
"""What a worker that has just joined may have in flight, as a share of the others' mean."""


def needs_care(worker: Worker, now_s: float) -> bool:
    """Whether `chosen` may treat this worker in another way than the rest."""
    return not worker.vitals.breaker.closed or worker.held_until_s > now_s or worker.warm_from_s is not None


def on_trial(workers: Sequence[Worker], now_s: float) -> Worker | None:
    """The worker that the next request should be tried on, if one is due: its probes answer, its breaker is open."""
    for worker in workers:
        vitals = worker.vitals
        if worker.state is WorkerState.DEGRADED and vitals.failures == 0 and vitals.breaker.trial_due(now_s):
            return worker
    return None


def chosen(ready: Sequence[Worker], now_s: float, warm_s: float) -> tuple[Worker, ...]:
    """Those of `ready` that may take a request now; all of them if none would be left."""
    willing = [worker for worker in ready if worker.held_until_s <= now_s]
    warm = [worker for worker in willing if worker.warm_from_s is None]
    if warm and len(warm) < len(willing):
        mean = sum(worker.in_flight for worker in warm) / len(warm)
        willing = [worker for worker in willing if _has_room(worker, mean, now_s, warm_s)]
    return tuple(willing or ready)


def _has_room(worker: Worker, mean_in_flight: float, now_s: float, warm_s: float) -> bool:
    if worker.warm_from_s is None:
        return True
    progress = (now_s - worker.warm_from_s) / warm_s if warm_s > 0 else 1.0
    if progress >= 1:
        worker.warm_from_s = None
        return True
    return worker.in_flight < max(1.0, mean_in_flight * (FIRST_SHARE + (1 - FIRST_SHARE) * progress))
