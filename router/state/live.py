"""Which settings can change while requests run, and how: all are checked first, then all are put in place.

`prepare` does whatever can fail and touches nothing; what it returns cannot fail. Called by reload; built by app.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from router.admission.admission import Admission
from router.admission.held_queue import HeldQueue
from router.config import RouterConfig, knobs
from router.errors import ConfigError
from router.fleet.api_keys import Header, authorization, check_names, read_keys
from router.fleet.registry import Registry, clean_name, clean_url
from router.request.dispatch import Dispatcher
from router.security.access import Access
from router.security.networks import Networks, hosts_of

log = logging.getLogger(__name__)

LIVE = ("worker", "worker_api_key_file", "admission.", "dispatch.", "hold.", "security.api_keys_file",
        "security.worker_network", "security.worker_scheme")  # fmt: skip
"""Keys, or beginnings of keys, that a reload puts in place; all others need a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """A configured worker. `name` is None where the configuration gives none: then its URL tells which it is."""

    name: str | None
    url: str
    headers: tuple[Header, ...]


def split_worker(spec: str) -> tuple[str | None, str]:
    """`NAME=URL` or `URL` to (name, URL)."""
    name, equals, url = spec.partition("=")
    if equals and "/" not in name:
        return name, url
    return None, spec


def networks_of(config: RouterConfig) -> Networks:
    """Raises ConfigError."""
    hosts = hosts_of(split_worker(spec)[1] for spec in config.worker)
    return Networks(config.security.worker_network, config.security.worker_scheme, hosts)


def value_at(config: object, path: tuple[str, ...]) -> object:
    """The setting at this path."""
    for name in path:
        config = getattr(config, name)
    return config


def changed_keys(before: RouterConfig, after: RouterConfig) -> list[str]:
    """Keys of the settings that differ."""
    return [knob.key for knob in knobs() if value_at(before, knob.path) != value_at(after, knob.path)]


class Live:
    """The parts of one running app that a new configuration reaches."""

    def __init__(
        self,
        config: RouterConfig,
        registry: Registry,
        dispatcher: Dispatcher,
        admission: Admission,
        held: HeldQueue,
        access: Access,
        networks: Networks,
    ) -> None:
        self._config = config
        self._registry = registry
        self._dispatcher = dispatcher
        self._admission = admission
        self._held = held
        self._access = access
        self._networks = networks
        self.leads: Callable[[], bool] = lambda: True  # of several processes one alone adds and removes workers

    def prepare(self, new: RouterConfig) -> Callable[[], list[str]]:
        """Check all of `new`; the function returned puts it in place and tells the keys that need a restart.

        Raises ConfigError, and nothing has changed.
        """
        access, networks = Access.of(new.security), networks_of(new)
        if access.closed and not access.admins:
            log.warning("%s holds no admin key: control routes are closed to all", new.security.api_keys_file)
        wanted = _specs(new)

        def apply() -> list[str]:
            changed = changed_keys(self._config, new)
            self._access.replace(access)
            self._networks.replace(networks)
            self._dispatcher.reconfigure(new.dispatch)
            self._admission.reconfigure(new.admission)
            self._held.config = new.hold
            if self.leads():
                self._set_workers(wanted)
            self._config = new
            return [key for key in changed if not key.startswith(LIVE)]

        return apply

    def _set_workers(self, wanted: list[WorkerSpec]) -> None:
        """Workers that were configured and are no more leave; new ones join; what was added by hand stays."""
        before = {clean_url(split_worker(spec)[1]) for spec in self._config.worker}
        urls = {spec.url: spec for spec in wanted}
        for worker in self._registry.all():
            spec = urls.get(worker.base_url)
            renamed = spec is not None and spec.name is not None and spec.name != worker.server
            if renamed or (spec is None and worker.base_url in before):
                self._registry.remove(worker)
        for spec in wanted:
            here = self._registry.at(spec.url)
            for worker in here:
                others = tuple(each for each in worker.extra_headers if each[0] != "authorization")
                worker.extra_headers = (*spec.headers, *others)
            if not here:
                taken = spec.name is not None and any(each.server == spec.name for each in self._registry.all())
                self._registry.add(spec.url, None if taken else spec.name, spec.headers)


def _specs(config: RouterConfig) -> list[WorkerSpec]:
    """The configured workers. Raises ConfigError."""
    keys = read_keys(config.worker_api_key_file)
    found: list[WorkerSpec] = []
    for text in config.worker:
        name, url = split_worker(text)
        spec = WorkerSpec(
            name=None if name is None else clean_name(name),
            url=clean_url(url),
            headers=authorization(keys.get(name, keys.get(None))),
        )
        if any(other.url == spec.url or (spec.name and other.name == spec.name) for other in found):
            raise ConfigError(f"worker: {text} is there twice.", param="worker")
        found.append(spec)
    named = [spec.name for spec in found if spec.name is not None]
    if all(spec.name is not None for spec in found):
        check_names(keys, named)
    return found
