"""What `nvidia-smi topo -m` prints is read as it is; what it does not print is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.topology import BadTopology, Topology, read_topology, unknown_topology

MATRICES = Path(__file__).parent / "topologies"


def topology(name: str) -> Topology:
    return read_topology((MATRICES / f"{name}.txt").read_text())


@pytest.mark.parametrize(
    ("name", "islands"),
    [
        ("nvswitch_8", [(0, 1, 2, 3, 4, 5, 6, 7)]),
        ("bridged_pairs_4", [(0, 1), (2, 3)]),
        ("crossed_pairs_4", [(0, 2), (1, 3)]),
        ("pcie_4", [(0,), (1,), (2,), (3,)]),
        ("hybrid_mesh_8", [(0, 1, 2, 3, 4, 5, 6, 7)]),
        ("single_1", [(0,)]),
    ],
)
def test_gpus_that_nvlink_joins_are_an_island(name: str, islands: list[tuple[int, ...]]) -> None:
    found = topology(name)

    assert found.islands(found.gpus) == islands


def test_an_island_is_of_the_gpus_asked_about_only() -> None:
    assert topology("nvswitch_8").islands([6, 1]) == [(1, 6)]
    assert topology("bridged_pairs_4").islands([1, 2]) == [(1,), (2,)]


def test_more_nvlinks_are_nearer_and_any_nvlink_is_nearer_than_pcie() -> None:
    mesh = topology("hybrid_mesh_8")
    pcie = topology("pcie_4")

    assert mesh.closeness(0, 3) > mesh.closeness(0, 1) > mesh.closeness(0, 5)
    assert mesh.closeness(0, 1) > pcie.closeness(0, 1) > pcie.closeness(0, 2) > 0


def test_network_cards_are_no_gpus() -> None:
    found = topology("nvswitch_8")

    assert found.gpus == tuple(range(8))
    assert len(found.links) == 8 * 7


def test_every_link_is_read_the_same_both_ways() -> None:
    for file in MATRICES.glob("*.txt"):
        links = read_topology(file.read_text()).links
        assert all(links[other, one] == link for (one, other), link in links.items()), file


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line of GPU names"),
        ("NVIDIA-SMI has failed\n", "no line of GPU names"),
        ("\tGPU0\tGPU1\nGPU0\t X \tNV1\n", "no line for GPU1"),
        ("\tGPU0\tGPU1\nGPU0\t X \nGPU1\tNV1\t X \n", "GPU0 does not match"),
        ("\tGPU0\tGPU1\nGPU0\tNV1\t X \nGPU1\tNV1\t X \n", "GPU0 does not match"),
        ("\tGPU0\tGPU1\nGPU0\t X \tNV1\nGPU7\tNV1\t X \n", "GPU7 does not match"),
    ],
)
def test_a_text_that_is_no_matrix_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadTopology, match=why):
        read_topology(text)


def test_of_an_unknown_machine_every_gpu_is_an_island() -> None:
    found = unknown_topology([3, 1])

    assert found.gpus == (1, 3)
    assert found.islands([1, 3]) == [(1,), (3,)]
    assert found.closeness(1, 3) == 0
