"""A rotating file of zstd-compressed lines. Blocking; called by decision_log from a worker thread, under its lock.

Every append ends a zstd block, so that what was appended can be read although the file is still open, and a killed
process loses nothing that was appended. Not here: what a line says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import zstandard

PREFIX, SUFFIX = "decisions-", ".jsonl.zst"
LEVEL = 3
"""zstd's own default: 0.1 ms for 100 lines of a 40 kB prompt each."""


class RotatingFile:
    """Writes `decisions-<UTC time>-<pid>.jsonl.zst` files in one folder and keeps the newest ones."""

    def __init__(
        self,
        folder: Path,
        *,
        head: Callable[[], bytes],
        max_bytes: int,
        max_age_s: float,
        keep_files: int,
        now: Callable[[], datetime],
    ) -> None:
        self._folder = folder
        self._head = head
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._keep_files = keep_files
        self._now = now
        self._file: BinaryIO | None = None
        self._zstd: zstandard.ZstdCompressionObj | None = None
        self._opened = now()
        self._size_bytes = 0

    def append(self, lines: bytes) -> None:
        """Write whole lines, in a new file when the current one is full or old. Raises OSError; the file that could
        not be written is then given up, and the next append begins a new one."""
        try:
            if self._file is not None and self._is_full():
                self.close()
            if self._file is None:
                self._open()
            self._write(lines)
        except OSError:
            self._give_up()
            raise

    def close(self) -> None:
        """End the file properly. Raises OSError."""
        file, zstd = self._file, self._zstd
        self._file = self._zstd = None
        if file is not None and zstd is not None:
            with file:
                file.write(zstd.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))

    def _give_up(self) -> None:
        file, self._file, self._zstd = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _is_full(self) -> bool:
        age_s = (self._now() - self._opened).total_seconds()
        return self._size_bytes >= self._max_bytes or age_s >= self._max_age_s

    def _open(self) -> None:
        self._opened = self._now()
        stamp = self._opened.strftime("%Y%m%dT%H%M%S.%fZ")
        self._file = (self._folder / f"{PREFIX}{stamp}-{os.getpid()}{SUFFIX}").open("xb")
        self._zstd = zstandard.ZstdCompressor(level=LEVEL).compressobj()
        self._size_bytes = 0
        self._write(self._head())
        for old in sorted(self._folder.glob(f"{PREFIX}*{SUFFIX}"))[: -self._keep_files]:
            old.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        file, zstd = self._file, self._zstd
        assert file is not None
        assert zstd is not None
        packed = zstd.compress(data) + zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        file.write(packed)
        file.flush()
        self._size_bytes += len(packed)
