"""Saves what the router has learned and takes it up again after a restart: breakers, identities, the policy's index.

A worker is known by its URL. If its server was restarted meanwhile, its identity differs from the saved one and its
index is forgotten as usual. Anything odd in the file is left out with a warning; a cold start is never prevented.
Called by app. Not here: the file's format (state_file), what a policy saves (policies.persists).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.clock import Clock
from router.fleet.registry import Registry
from router.fleet.server_info import ServerFacts
from router.policies import Policy
from router.policies.persists import dump_of, load_into
from router.state import state_file
from router.state.config import StateConfig
from router.types import WorkerId

log = logging.getLogger(__name__)


def unix_s() -> float:
    """Wall time: the only clock that goes on while the router is down."""
    return datetime.now(UTC).timestamp()


class StateKeeper:
    def __init__(
        self, config: StateConfig, registry: Registry, policy: Policy, policy_name: str, clock: Clock
    ) -> None:
        self._config = config
        self._path = Path(config.file)
        self._registry = registry
        self._policy = policy
        self._policy_name = policy_name
        self._clock = clock

    async def run(self) -> None:
        """Save now and then until cancelled."""
        while True:
            await asyncio.sleep(self._config.interval_s)
            self.save()

    def save(self) -> None:
        """Never raises; a file that cannot be written is said in the log."""
        try:
            state_file.write(self._path, self.state())
        except OSError as error:
            log.warning("state.file: %s cannot be written (%s)", self._path, error.strerror)

    def state(self) -> dict[str, Any]:
        """What is saved."""
        now_s = self._clock()
        return {
            "saved_unix_s": unix_s(),
            "policy": self._policy_name,
            "workers": [
                {
                    "id": worker.id,
                    "url": worker.base_url,
                    "identity": worker.facts.identity if worker.facts else None,
                    "breaker_open": not worker.vitals.breaker.closed,
                    "breaker_doublings": worker.vitals.breaker.doublings,
                }
                for worker in self._registry.all()
            ],
            "learned": dump_of(self._policy, now_s),
        }

    def load(self) -> bool:
        """Take up what was saved; whether there was anything. Call it once the configured workers are members."""
        try:
            found = state_file.read(self._path, now_unix_s=unix_s(), max_age_s=self._config.max_age_s)
        except FileNotFoundError:
            log.info("state.file: %s is not there yet", self._path)
            return False
        except state_file.Unusable as why:
            log.warning("state.file: %s is not used: %s", self._path, why)
            return False
        try:
            known = self._take_workers(found["workers"])
            if found.get("policy") == self._policy_name and found.get("learned") is not None:
                load_into(self._policy, found["learned"], self._clock(), known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("state.file: %s is used in part only (%s)", self._path, type(error).__name__)
            return False
        log.info("state.file: taken up for %d workers", len(known))
        return True

    def _take_workers(self, saved: list[dict[str, Any]]) -> set[WorkerId]:
        """Those that are here again under the same name and URL."""
        known: set[WorkerId] = set()
        for each in saved:
            worker = self._registry.find(WorkerId(each["id"]))
            if worker is None or worker.base_url != each["url"]:
                continue
            known.add(worker.id)
            if each["identity"] is not None:
                worker.facts = ServerFacts(identity=str(each["identity"]))
            if each["breaker_open"]:
                worker.vitals.breaker.reopened(self._clock(), int(each["breaker_doublings"]))
        return known
