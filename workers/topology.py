"""How near this machine's GPUs are to each other: the matrix that `nvidia-smi topo -m` prints, read.

Pure: text in, Topology out. Called by placement and launch_checks. Not here: running nvidia-smi.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # nvidia-smi underlines the header
_GPU = re.compile(r"GPU(\d+)")
_NVLINK = re.compile(r"NV(\d+)")
_PCIE_CLOSENESS = {"PIX": 5, "PXB": 4, "PHB": 3, "NODE": 2, "SYS": 1}
"""nvidia-smi's legend, from one PCIe bridge to across CPU sockets; only the order matters."""
_NVLINK_CLOSENESS = 100
"""More than any PCIe path: one NVLink (25 GB/s each way at least) beats them all."""


class BadTopology(Exception):
    """The text is no matrix of `nvidia-smi topo -m`; its message says what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """`links` holds nvidia-smi's word for each pair of different GPUs, both ways round."""

    gpus: tuple[int, ...]
    links: Mapping[tuple[int, int], str]

    def closeness(self, one: int, other: int) -> int:
        """Larger is nearer; above 100 is NVLink. 0 when nothing is known."""
        link = self.links.get((one, other), "")
        nvlink = _NVLINK.fullmatch(link)
        return _NVLINK_CLOSENESS + int(nvlink[1]) if nvlink else _PCIE_CLOSENESS.get(link, 0)

    def islands(self, among: Iterable[int]) -> list[tuple[int, ...]]:
        """The GPUs of `among` in groups that NVLink joins, directly or through each other; sorted, smallest first."""
        left = sorted(set(among))
        found = []
        while left:
            island = [left.pop(0)]
            for member in island:  # grows while it is read
                joined = [gpu for gpu in left if self.closeness(member, gpu) > _NVLINK_CLOSENESS]
                island += joined
                left = [gpu for gpu in left if gpu not in joined]
            found.append(tuple(sorted(island)))
        return found


def unknown_topology(gpus: Iterable[int]) -> Topology:
    """A machine of which only the number of GPUs is known."""
    return Topology(gpus=tuple(sorted(gpus)), links={})


def read_topology(text: str) -> Topology:
    """The GPUs' part of what `nvidia-smi topo -m` printed; network cards and affinities are left out."""
    lines = [line.split() for line in _ESCAPES.sub("", text).splitlines()]
    header = next((line for line in lines if line and _GPU.fullmatch(line[0]) and "X" not in line), None)
    if header is None:
        raise BadTopology("no line of GPU names, as `nvidia-smi topo -m` starts with")
    columns = [int(word.removeprefix("GPU")) for word in header if _GPU.fullmatch(word)]
    links: dict[tuple[int, int], str] = {}
    for line in lines:
        if line is header or not line or not _GPU.fullmatch(line[0]):
            continue
        row = int(line[0].removeprefix("GPU"))
        cells = line[1 : 1 + len(columns)]
        if row not in columns or len(cells) < len(columns) or cells[columns.index(row)] != "X":
            raise BadTopology(f"the line of GPU{row} does not match the header")
        links |= {(row, column): cell for column, cell in zip(columns, cells, strict=True) if column != row}
    missing = [gpu for gpu in columns if len(columns) > 1 and not any(row == gpu for row, _ in links)]
    if missing:
        raise BadTopology(f"no line for GPU{missing[0]}")
    return Topology(gpus=tuple(columns), links=links)
