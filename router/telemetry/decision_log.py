"""The decision log: every request as one line of a rotated, compressed file, written off the request's path.

`write` is a sink of Outcomes that only appends to a bounded queue; `run` is a task that empties it, encoding and
compressing in a thread. What the queue cannot hold is counted as dropped. Not here: the schema (decision_line), files
(log_file). Built and started by app.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from router.clock import Clock
from router.errors import ConfigError
from router.knob import knob, require
from router.records import Outcome
from router.telemetry.decision_line import head_line, outcome_line
from router.telemetry.log_file import RotatingFile

log = logging.getLogger(__name__)

SLICE = 32
"""Requests encoded in one go: about 0.5 ms, during which the event loop may have to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLogConfig:
    dir: str = knob("", "folder of the decision log; unset: no log")
    text: bool = knob(False, "write request bodies and session names too; they are what users typed")
    max_file_bytes: int = knob(64 * 2**20, "compressed bytes after which a new file is begun")
    max_file_age_s: float = knob(3600.0, "seconds after which a new file is begun")
    keep_files: int = knob(48, "files kept; the oldest are deleted")
    queue_requests: int = knob(10_000, "requests that may wait to be written; more are dropped and counted")
    queue_bytes: int = knob(64 * 2**20, "bytes of bodies that may wait to be written, with text on")
    flush_interval_s: float = knob(1.0, "seconds between two writes")

    def __post_init__(self) -> None:
        for name in ("max_file_bytes", "max_file_age_s", "keep_files", "queue_requests", "flush_interval_s"):
            require(getattr(self, name) > 0, f"{name} must be positive")


def utc_now() -> datetime:
    return datetime.now(UTC)


class DecisionLog:
    """One log of one app. `written`, `dropped` and `failed` count requests since the start.

    Raises ConfigError when the folder cannot be made.
    """

    def __init__(
        self,
        config: DecisionLogConfig,
        *,
        trieway: str,
        block_bytes: int,
        clock: Clock,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.written = 0
        self.dropped = 0
        self.failed = 0
        self._config = config
        self._queue: list[tuple[Outcome, bytes | None]] = []
        self._queue_bytes = 0
        self._unix_offset_s = now().timestamp() - clock()
        self._lock = Lock()
        folder = Path(config.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The decision log's folder {folder} cannot be made: {error.strerror}.", param="decision_log.dir"
            ) from error
        self._file = RotatingFile(
            folder,
            head=lambda: head_line(
                trieway=trieway, started_at=now().isoformat(), block_bytes=block_bytes, text=config.text
            ),
            max_bytes=config.max_file_bytes,
            max_age_s=config.max_file_age_s,
            keep_files=config.keep_files,
            now=now,
        )

    @property
    def wants_bodies(self) -> bool:
        return self._config.text

    def write(self, outcome: Outcome, body: bytes) -> None:
        """Queue one request, or count it as dropped. O(1), no I/O."""
        config = self._config
        kept = body if config.text else None
        size = len(body) if config.text else 0
        if len(self._queue) >= config.queue_requests or self._queue_bytes + size > config.queue_bytes:
            self.dropped += 1
            return
        self._queue.append((outcome, kept))
        self._queue_bytes += size

    async def run(self) -> None:
        """Write until cancelled; what is queued by then is still written."""
        try:
            while True:
                await asyncio.sleep(self._config.flush_interval_s)
                if self._queue:
                    await asyncio.to_thread(self._flush, self._take())
        finally:
            self.close()

    def close(self) -> None:
        """Write what is queued and end the file."""
        self._flush(self._take())
        with self._lock:
            try:
                self._file.close()
            except OSError as error:
                log.error("decision log: the last file could not be ended: %s", error)

    def _take(self) -> list[tuple[Outcome, bytes | None]]:
        batch, self._queue, self._queue_bytes = self._queue, [], 0
        return batch

    def _flush(self, batch: list[tuple[Outcome, bytes | None]]) -> None:
        """Encode and append a batch, slice by slice. Runs in a thread; a full disk costs lines, never a request."""
        for start in range(0, len(batch), SLICE):
            part = batch[start : start + SLICE]
            lines = b"".join(outcome_line(each, each.at_s + self._unix_offset_s, body) for each, body in part)
            with self._lock:
                try:
                    self._file.append(lines)
                except OSError as error:
                    self.failed += len(part)
                    log.error("decision log: %d requests could not be written: %s", len(part), error)
                else:
                    self.written += len(part)
            time.sleep(0)  # lets the event loop's thread have the interpreter between slices
