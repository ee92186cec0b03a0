"""Reloads the configuration on SIGHUP and when one of its files changes: whole and checked, or not at all.

A bad file leaves everything as it is and is named in one log line. Called by app when cli hands it a source.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.config import RouterConfig
from router.errors import RouterError
from router.state.live import Live

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often files are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """Where the configuration comes from: `read` raises RouterError; `file` is watched, as are files it names."""

    read: Callable[[], RouterConfig]
    file: Path | None


class Reloader:
    """`told` hears "applied" or "refused" after each try."""

    def __init__(self, source: ConfigSource, config: RouterConfig, live: Live, told: Callable[[str], None]) -> None:
        self._source = source
        self._live = live
        self._told = told
        self._watched = self._files(config)
        self._seen = _stamps(self._watched)
        self._wake = asyncio.Event()
        self._applied: Callable[[], None] = lambda: None

    def replicated(self, applied: Callable[[], None]) -> None:
        """Call `applied` after each reload that was put in place: other processes have to follow."""
        self._applied = applied

    def reload(self) -> bool:
        """Read, check and apply; whether it was applied."""
        try:
            config = self._source.read()
            apply = self._live.prepare(config)
        except RouterError as error:
            log.error("configuration not reloaded, the old one stays: %s", error.message)
            self._told("refused")
            return False
        waiting = apply()
        self._watched = self._files(config)
        log.info("configuration reloaded")
        if waiting:
            log.warning("these settings count from the next start only: %s", ", ".join(waiting))
        self._told("applied")
        self._applied()
        return True

    def look(self) -> bool:
        """Reload if a file has changed since the last look; whether one had."""
        stamps = _stamps(self._watched)
        if stamps == self._seen:
            return False
        self.reload()
        self._seen = _stamps(self._watched)
        return True

    async def run(self) -> None:
        """Until cancelled. Takes SIGHUP for itself where it may (only the main thread's loop can)."""
        loop = asyncio.get_running_loop()
        takes_signal = threading.current_thread() is threading.main_thread()
        if takes_signal:
            loop.add_signal_handler(signal.SIGHUP, self._wake.set)
        try:
            while True:
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._wake.wait()
                except TimeoutError:
                    self.look()
                else:
                    self._wake.clear()
                    self.reload()
                    self._seen = _stamps(self._watched)
        finally:
            if takes_signal:
                loop.remove_signal_handler(signal.SIGHUP)

    def _files(self, config: RouterConfig) -> list[Path]:
        named = [self._source.file] if self._source.file else []
        if config.security.api_keys_file:
            named.append(Path(config.security.api_keys_file))
        named += [Path(spec.rpartition("=")[2]) for spec in config.worker_api_key_file]
        return named


def _stamps(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """What changes when a file does, be it written or replaced; None while it is not there."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            stat = file.stat()
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append(None)
    return found
