"""The running experiment as msgpack's types: what the leader's desk began, in the other processes. Called by replica.

Arms are assigned by a salted hash, so that all processes agree; every one tallies the outcomes of all.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from router.experiment.config import ExperimentConfig
from router.experiment.desk import ExperimentDesk
from router.experiment.isolate import Plan


def told(desk: ExperimentDesk) -> tuple[Any, Any]:
    """(what runs, how the last one ended): one of them is None."""
    running = desk.running
    if running is None:
        return None, desk.past[0] if desk.past else None
    arms = range(len(running.arms))
    workers = None if running.plan.workers is None else [running.workers_of(place) for place in arms]
    return (asdict(running.config), running.salt, running.started_s, workers, running.plan.why), None


def follow(desk: ExperimentDesk, body: Any) -> None:
    """Do as the leader's desk did."""
    begun, final = body
    if begun is None:
        desk.followed(final)
        return
    config, salt, started_s, workers, why = begun
    if desk.running is not None and desk.running.salt == salt:
        return
    plan = Plan(workers=None if workers is None else tuple(frozenset(each or ()) for each in workers), why=why)
    desk.follow(msgspec.convert(config, ExperimentConfig), plan, salt, started_s)
