"""Open-loop schedules: who plays what, and when it is due."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from loadtests.load_request import LoadRequest
from loadtests.locust_schedule import Schedule, Share, schedule_of
from loadtests.trace_file import TraceError
from loadtests.traces import BlockRequest
from loadtests.workloads import MultiTurn, generate

DEFAULTS = {"trace": "", "limit": 0, "workload": "uniform", "sessions": 5, "sessions_per_s": 1.0, "rate": 1.0,
            "seed": 0, "think_scale": 1.0}  # fmt: skip


def turn(session: str, number: int, arrival_s: float, gap_s: float = 0.0) -> LoadRequest:
    return LoadRequest(
        session_id=session, turn=number, arrival_s=arrival_s, gap_s=gap_s, messages=[{"role": "user"}], max_tokens=1
    )


def test_shares_are_disjoint_and_together_all_sessions() -> None:
    schedule = Schedule(generate(MultiTurn(), sessions=11, sessions_per_s=1.0))
    shares = [[one.name for one in schedule.share(Share(index=index, of=3))] for index in range(3)]

    assert [len(share) for share in shares] == [4, 4, 3]
    assert sorted(name for share in shares for name in share) == sorted(one.name for one in schedule.sessions)
    assert schedule.requests == sum(len(one.turns) for one in schedule.sessions)


def test_a_rate_brings_arrivals_closer_and_leaves_pauses_alone() -> None:
    schedule = Schedule([turn("a", 0, 10.0), turn("b", 0, 14.0), turn("a", 1, 10.0, gap_s=3.0)], rate=2.0)
    first, second = schedule.sessions

    assert (first.starts_s, second.starts_s, schedule.last_start_s) == (0.0, 2.0, 2.0)
    assert schedule.due_s(first.turns[1], ended_s=5.0) == 8.0


def test_think_scale_multiplies_pauses_only() -> None:
    schedule = Schedule([turn("a", 0, 0.0), turn("a", 1, 4.0, gap_s=10.0)], think_scale=0.5)

    assert schedule.due_s(schedule.sessions[0].turns[1], ended_s=1.0) == 6.0
    assert Schedule([turn("a", 0, 0.0), turn("a", 1, 4.0)], think_scale=0.0).due_s(turn("a", 1, 4.0), 1.0) == 4.0


def test_blocks_become_text_when_they_are_sent() -> None:
    schedule = Schedule([BlockRequest(arrival_s=0.0, prompt_tokens=600, output_tokens=7, blocks=(1, 2))])
    session = schedule.sessions[0]
    call = schedule.call(session.turns[0], session.name)

    assert (session.name, call.max_tokens, len(str(call.messages[0]["content"]))) == ("request-0", 7, 2400)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trace": "/no/such.jsonl"}, "/no/such.jsonl does not exist"),
        ({"workload": "chat"}, "there is no workload 'chat'; --workload takes shared_prefix"),
        ({"sessions": 0}, "must be above zero"),
    ],
)
def test_options_that_mean_nothing_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(TraceError, match=says):
        schedule_of(Namespace(**{**DEFAULTS, **change}))


def test_a_trace_or_a_workload_makes_a_schedule(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"timestamp": 5, "input_length": 3, "output_length": 1, "hash_ids": [9]}\n' * 3)

    assert schedule_of(Namespace(**{**DEFAULTS, "trace": str(trace), "limit": 2})).requests == 2
    assert schedule_of(Namespace(**DEFAULTS)).requests == 5
