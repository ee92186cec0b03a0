"""Placement gives every server GPUs of its own, near to each other, and says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.placement import PlacementError, Plan, Wanted, place
from workers.topology import Topology, read_topology, unknown_topology

MATRICES = Path(__file__).parent / "topologies"


def topology(name: str) -> Topology:
    return read_topology((MATRICES / f"{name}.txt").read_text())


def plan(matrix: str, **wanted: Any) -> Plan:
    return place(Wanted(model="m", **wanted), topology(matrix))


def gpus(found: Plan) -> list[tuple[int, ...]]:
    return [worker.gpus for worker in found.workers]


def test_without_wishes_each_gpu_gets_a_server_and_ports_follow_each_other() -> None:
    found = plan("nvswitch_4")

    assert gpus(found) == [(0,), (1,), (2,), (3,)]
    assert [worker.port for worker in found.workers] == [30000, 30001, 30002, 30003]
    assert [worker.kv_events_port for worker in found.workers] == [5557, 5558, 5559, 5560]
    assert [worker.name for worker in found.workers] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("matrix", "tp", "expected"),
    [
        ("nvswitch_8", 2, [(0, 1), (2, 3), (4, 5), (6, 7)]),
        ("nvswitch_8", 4, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("nvswitch_8", 8, [(0, 1, 2, 3, 4, 5, 6, 7)]),
        ("bridged_pairs_4", 2, [(0, 1), (2, 3)]),
        ("crossed_pairs_4", 2, [(0, 2), (1, 3)]),
        ("hybrid_mesh_8", 2, [(0, 3), (1, 2), (4, 7), (5, 6)]),
        ("pcie_4", 2, [(0, 1), (2, 3)]),
        ("pcie_interleaved_4", 2, [(0, 2), (1, 3)]),
    ],
)
def test_a_tensor_parallel_group_is_of_gpus_near_to_each_other(
    matrix: str, tp: int, expected: list[tuple[int, ...]]
) -> None:
    assert gpus(plan(matrix, tp_size=tp)) == expected


def test_a_group_that_nvlink_does_not_join_is_refused_where_nvlink_joins_others() -> None:
    with pytest.raises(PlacementError, match=r"joined as 0, 1 \| 2, 3\. Ask for a smaller --tp"):
        plan("bridged_pairs_4", tp_size=4)


def test_it_is_made_when_asked_for_and_said_to_be_slow() -> None:
    found = plan("bridged_pairs_4", tp_size=4, across_islands=True)

    assert gpus(found) == [(0, 1, 2, 3)]
    assert found.remarks == ("No NVLink joins 0, 1, 2, 3: tensor parallelism over PCIe is slow.",)


def test_without_any_nvlink_groups_are_made_and_said_to_be_slow() -> None:
    assert plan("pcie_4", tp_size=2).remarks == ("No NVLink joins 0, 1: tensor parallelism over PCIe is slow.",)


def test_a_pair_that_is_left_of_two_islands_is_not_made_a_group() -> None:
    found = plan("bridged_pairs_4", tp_size=2, gpus=(0, 1, 2))

    assert gpus(found) == [(0, 1)]
    assert found.unused_gpus == (2,)
    assert found.remarks == ("Unused: GPU 2, too few for another server of 2.",)


def test_a_small_island_is_used_before_a_large_one_is_broken() -> None:
    matrix = "\tGPU0\tGPU1\tGPU2\tGPU3\tGPU4\n"
    joined = {frozenset(pair) for pair in [(0, 1), (0, 2), (1, 2), (3, 4)]}
    for one in range(5):
        cells = [" X " if one == other else "NV4" if {one, other} in joined else "SYS" for other in range(5)]
        matrix += "\t".join([f"GPU{one}", *cells]) + "\n"

    found = place(Wanted(model="m", tp_size=2), read_topology(matrix))

    assert gpus(found) == [(0, 1), (3, 4)]


def test_data_parallel_ranks_share_a_server_and_each_has_an_events_port() -> None:
    found = plan("nvswitch_8", tp_size=2, dp_size=2)

    assert gpus(found) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [worker.ports for worker in found.workers] == [(30000, 5557, 5558), (30001, 5559, 5560)]


def test_groups_of_one_server_stay_whole_in_the_order_of_its_gpus() -> None:
    assert gpus(plan("crossed_pairs_4", tp_size=2, dp_size=2)) == [(0, 2, 1, 3)]


def test_only_named_gpus_are_used_and_in_their_order() -> None:
    assert gpus(plan("nvswitch_8", gpus=(5, 2))) == [(5,), (2,)]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"gpus": (0, 9)}, "no GPU 9; it has 0, 1, 2, 3"),
        ({"gpus": (0, 0)}, "twice"),
        ({"tp_size": 8}, "needs 8 GPUs; 4 may be used"),
        ({"tp_size": 2, "dp_size": 4}, "needs 8 GPUs; 4 may be used"),
        ({"gpus": (1,), "dp_size": 2}, r"needs 2 GPUs; 1 may be used \(1\)"),
        ({"tp_size": 0}, "at least 1"),
        ({"port": 5557}, "overlap"),
        ({"port": 65_535}, "outside 1 to 65,535"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_change(wanted: dict[str, Any], why: str) -> None:
    with pytest.raises(PlacementError, match=why):
        plan("nvswitch_4", **wanted)


def test_no_events_ports_without_events() -> None:
    assert {worker.ports for worker in plan("nvswitch_4", kv_events_port=None).workers} == {
        (30000,), (30001,), (30002,), (30003,),
    }  # fmt: skip


def test_a_wildcard_address_is_reached_over_loopback() -> None:
    assert plan("single_1", host="0.0.0.0").workers[0].url == "http://127.0.0.1:30000"
    assert plan("single_1", host="::").workers[0].url == "http://127.0.0.1:30000"
    assert plan("single_1", host="::1").workers[0].url == "http://[::1]:30000"


@given(
    count=st.integers(1, 16), tp=st.sampled_from([1, 2, 3, 4, 8]), dp=st.integers(1, 4), data=st.data()
)  # fmt: skip
def test_servers_never_share_a_gpu_or_a_port_and_as_many_as_fit_are_made(
    count: int, tp: int, dp: int, data: st.DataObject
) -> None:
    """On any machine whose NVLinks, if any, join all its GPUs."""
    link = data.draw(st.sampled_from(["NV2", "PIX", ""]))
    pairs = [(one, other) for one in range(count) for other in range(count) if one != other]
    known = Topology(gpus=tuple(range(count)), links=dict.fromkeys(pairs, link))
    machine = known if link else unknown_topology(range(count))
    if count < tp * dp:
        with pytest.raises(PlacementError):
            place(Wanted(model="m", tp_size=tp, dp_size=dp), machine)
        return
    found = place(Wanted(model="m", tp_size=tp, dp_size=dp), machine)
    used = [gpu for worker in found.workers for gpu in worker.gpus]
    ports = [port for worker in found.workers for port in worker.ports]

    assert len(found.workers) == count // (tp * dp)
    assert len(used) == len(set(used))
    assert len(ports) == len(set(ports))
    assert sorted([*used, *found.unused_gpus]) == list(range(count))
