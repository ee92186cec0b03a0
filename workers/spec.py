"""WorkerSpec: what one SGLang server is to serve and on which GPUs, before anything runs.

Made by placement, turned into a command line by sglang.command. Not here: how flags are spelled, what is running.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One server process behind one port: `dp_size` replicas of the model, each on `tp_size` GPUs.

    `gpus` are nvidia-smi's indexes, one tensor-parallel group after the other. `kv_events_port` is that of
    data-parallel rank 0; the others follow. None: no KV events.
    """

    name: str
    model: str
    gpus: tuple[int, ...]
    host: str
    port: int
    tp_size: int = 1
    dp_size: int = 1
    kv_events_port: int | None = None

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104  compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def ports(self) -> tuple[int, ...]:
        """Every port that the server binds by this specification."""
        events = () if self.kv_events_port is None else range(self.kv_events_port, self.kv_events_port + self.dp_size)
        return (self.port, *events)
