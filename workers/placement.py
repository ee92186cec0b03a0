"""Which server gets which GPUs: (GPUs, tensor parallelism, data parallelism) to a list of WorkerSpec.

Pure arithmetic over a Topology. Called by launch_command. Not here: what the machine has, what is running.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.spec import WorkerSpec
from workers.topology import Topology


class PlacementError(Exception):
    """The plan does not fit the GPUs; its message says why and what to ask for instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to place. `gpus` are the ones that may be used; None: all that the topology has.

    A server takes `tp_size` x `dp_size` GPUs; there are as many servers as fit. The i-th listens on `port` + i.
    `across_islands` lets a tensor-parallel group span GPUs that no NVLink joins, though others are joined.
    """

    model: str
    gpus: tuple[int, ...] | None = None
    tp_size: int = 1
    dp_size: int = 1
    host: str = "127.0.0.1"
    port: int = 30_000
    kv_events_port: int | None = 5557
    across_islands: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The servers, in the order of their ports, and what the person should know about it."""

    workers: tuple[WorkerSpec, ...]
    unused_gpus: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()


def place(wanted: Wanted, topology: Topology) -> Plan:
    """The plan for `wanted`. Raises PlacementError."""
    gpus = _usable(wanted, topology)
    per_server = wanted.tp_size * wanted.dp_size
    if len(gpus) < per_server:
        raise PlacementError(
            f"One server with tp {wanted.tp_size} and dp {wanted.dp_size} needs {per_server} GPUs; "
            f"{len(gpus)} may be used ({_names(gpus)}). Ask for less with --tp or --dp, or for more with --gpus."
        )
    remarks = []
    groups = _groups(gpus, wanted.tp_size, topology)
    islands = [island for island in topology.islands(gpus) if len(island) > 1]
    split = [group for group in groups if not any(set(group) <= set(island) for island in islands)]
    if wanted.tp_size > 1 and split and islands and not wanted.across_islands:
        within = [group for group in groups if group not in split]
        if len(within) < wanted.dp_size:
            joined = " | ".join(_names(island) for island in topology.islands(gpus))
            raise PlacementError(
                f"tp {wanted.tp_size} wants {wanted.tp_size} GPUs joined by NVLink; they are joined as {joined}. "
                "Ask for a smaller --tp, name other --gpus, or allow slower groups with --across-islands."
            )
        groups = within
    elif wanted.tp_size > 1 and split:
        remarks.append(
            f"No NVLink joins {_names(split[0])}: tensor parallelism over PCIe is slow."
            if topology.links
            else "How the GPUs are joined is unknown: groups are made in the order of their numbers."
        )
    count = len(groups) // wanted.dp_size
    workers = tuple(_worker(wanted, i, groups[i * wanted.dp_size : (i + 1) * wanted.dp_size]) for i in range(count))
    _check_ports(wanted, workers)
    used = {gpu for worker in workers for gpu in worker.gpus}
    unused = tuple(gpu for gpu in gpus if gpu not in used)
    if unused:
        remarks.append(f"Unused: GPU {_names(unused)}, too few for another server of {per_server}.")
    return Plan(workers=workers, unused_gpus=unused, remarks=tuple(remarks))


def _usable(wanted: Wanted, topology: Topology) -> tuple[int, ...]:
    if wanted.tp_size < 1 or wanted.dp_size < 1:
        raise PlacementError("--tp and --dp must be at least 1.")
    if wanted.gpus is None:
        return topology.gpus
    strangers = [gpu for gpu in wanted.gpus if gpu not in topology.gpus]
    if strangers:
        raise PlacementError(
            f"This machine has no GPU {strangers[0]}; it has {_names(topology.gpus) or 'none'}. Change --gpus."
        )
    if len(set(wanted.gpus)) < len(wanted.gpus):
        raise PlacementError("--gpus names a GPU twice.")
    return wanted.gpus


def _groups(gpus: tuple[int, ...], size: int, topology: Topology) -> list[tuple[int, ...]]:
    """Tensor-parallel groups of `size`: each starts with the first GPU left and takes those nearest to it.

    GPUs of smaller islands come first, so that a group that fits there leaves the larger ones whole.
    """
    if size == 1:
        return [(gpu,) for gpu in gpus]
    left = list(gpus)
    groups = []
    while len(left) >= size:
        islands = sorted(topology.islands(left), key=lambda island: (len(island) < size, len(island), island))
        group = [islands[0][0]]
        while len(group) < size:
            nearest = max(
                (gpu for gpu in left if gpu not in group),
                key=lambda gpu: (sum(topology.closeness(member, gpu) for member in group), -gpu),
            )
            group.append(nearest)
        left = [gpu for gpu in left if gpu not in group]
        groups.append(tuple(sorted(group)))
    return sorted(groups)


def _worker(wanted: Wanted, index: int, groups: list[tuple[int, ...]]) -> WorkerSpec:
    gpus = tuple(gpu for group in groups for gpu in group)
    events = None if wanted.kv_events_port is None else wanted.kv_events_port + index * wanted.dp_size
    return WorkerSpec(
        name=f"gpu{'-'.join(map(str, gpus))}",
        model=wanted.model,
        gpus=gpus,
        host=wanted.host,
        port=wanted.port + index,
        tp_size=wanted.tp_size,
        dp_size=wanted.dp_size,
        kv_events_port=events,
    )


def _check_ports(wanted: Wanted, workers: tuple[WorkerSpec, ...]) -> None:
    ports = [port for worker in workers for port in worker.ports]
    if len(set(ports)) < len(ports):
        raise PlacementError(
            f"The ports from {wanted.port} on and those of KV events from {wanted.kv_events_port} on overlap. "
            "Choose others with --port or --kv-events-port."
        )
    if not 1 <= min(ports) <= max(ports) <= 65_535:
        raise PlacementError(f"Port {max(ports)} is outside 1 to 65,535. Choose others with --port.")


def _names(gpus: tuple[int, ...]) -> str:
    return ", ".join(map(str, gpus))
