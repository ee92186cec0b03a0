"""Patience: how long `trieway workers launch` waits for what, and how often it starts a server again.

Read by process; in a file of its own so that the command's help needs none of process's imports.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited for what. The back-off doubles from `restart_after_s` to `restart_at_most_every_s`, and begins
    anew once a server has been ready for `forgive_after_s`; `restarts` in a row without that, and it is given up.

    `probe_timeout_s`: SGLang's /health itself gives up after 20 s.
    """

    ready_within_s: float = 1800.0
    probe_every_s: float = 1.0
    probe_timeout_s: float = 25.0
    restart_after_s: float = 1.0
    restart_at_most_every_s: float = 60.0
    forgive_after_s: float = 300.0
    restarts: int = 5
    stop_within_s: float = 60.0

    def pause_s(self, failures: int) -> float:
        """The pause before the restart that follows `failures` earlier ones in a row."""
        return min(self.restart_after_s * 2.0**failures, self.restart_at_most_every_s)
