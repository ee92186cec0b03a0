"""Reading a decision log: what is wrong with one is said with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from loadtests.decision_log_trace import is_decision_log, logged_traffic, read_decision_log
from loadtests.trace_file import TraceError

HEAD = '{"trieway_decision_log":2,"trieway":"0.1","started_at":"2026-01-01T00:00:00Z","block_bytes":256,"text":false}'

OLD_HEAD = HEAD.replace(":2,", ":1,", 1)


def line(request_id: str = "a", at: float = 1000.0, blocks: str = "", more: str = "") -> str:
    tokens = len(blocks) // 16 * 64 + 10
    return (
        f'{{"request_id":"{request_id}","at_unix_s":{at},"endpoint":"/generate","status":200,"e2e_s":1.0,'
        f'"policy":"random","blocks":"{blocks}","block_tokens":64.0,"key_tokens":{tokens}{more}}}'
    )


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEAD, line(), "{nope"], r"log\.jsonl:3: not JSON"),
        ([HEAD, line(), '{"request_id": 5}'], r"log\.jsonl:3: .*Expected `str`"),
        ([HEAD, line(blocks="abc")], r"log\.jsonl:2: field 'blocks': expected 16 hex digits"),
        ([HEAD, line(blocks="zzzzzzzzzzzzzzzz")], r"log\.jsonl:2: field 'blocks'"),
        ([HEAD.replace(":2,", ":3,", 1), line()], r"log\.jsonl:1: .*version 3, this Trieway reads up to 2"),
        ([line()], r"log\.jsonl:1: not the first line of a decision log"),
        ([HEAD], r"holds no request"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        read_decision_log(written(tmp_path / "log.jsonl", *lines))


def test_a_last_line_that_is_cut_short_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{HEAD}\n{line()}\n{line()[:40]}")
    found = read_decision_log(path)

    assert len(found) == 1
    assert "log.jsonl:3 is cut short and left out" in caplog.text


def test_a_line_that_is_cut_short_in_the_middle_of_a_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"log\.jsonl:3: not JSON"):
        read_decision_log(written(tmp_path / "log.jsonl", HEAD, line(), line()[:40], line()))


def test_damaged_compression_is_named(tmp_path: Path) -> None:
    packed = bytearray(zstandard.compress("\n".join([HEAD, *(line(str(i)) for i in range(500))]).encode()))
    packed[20:60] = b"\xff" * 40
    path = tmp_path / "decisions-1.jsonl.zst"
    path.write_bytes(packed)

    with pytest.raises(TraceError, match=r"decisions-1\.jsonl\.zst:\d+: "):
        read_decision_log(tmp_path)


def test_files_with_blocks_of_different_sizes_are_not_mixed(tmp_path: Path) -> None:
    for name, head in (("decisions-1", HEAD), ("decisions-2", HEAD.replace("256", "512"))):
        (tmp_path / f"{name}.jsonl.zst").write_bytes(zstandard.compress(f"{head}\n{line()}\n".encode()))

    with pytest.raises(TraceError, match=r"decisions-2.*512 here, 256 in the files before"):
        read_decision_log(tmp_path)


def test_a_folder_without_logs_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no decision log here"):
        read_decision_log(tmp_path)
    with pytest.raises(TraceError, match="No such file"):
        read_decision_log(tmp_path / "none.jsonl")


def test_it_is_told_from_other_traces(tmp_path: Path) -> None:
    assert is_decision_log(written(tmp_path / "log.jsonl", HEAD, line()))
    assert not is_decision_log(written(tmp_path / "other.jsonl", '{"hash_ids": []}'))
    assert not is_decision_log(tmp_path)


def test_requests_come_in_order_of_arrival_and_up_to_the_limit(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", HEAD, line("late", 1002.0), line("early", 1000.0), line("mid", 1001.0))

    read = read_decision_log(log, limit=2)

    assert [(each.request_id, each.arrival_s) for each in read] == [("early", 0.0), ("mid", 1.0)]


def test_replay_shares_pages_exactly_where_block_hashes_are_equal(tmp_path: Path) -> None:
    a, b, c = "0" * 15 + "1", "0" * 15 + "2", "0" * 15 + "3"
    usage = ',"prompt_tokens":210,"completion_tokens":100'
    log = written(
        tmp_path / "log.jsonl",
        HEAD,
        line("1", 1.0, a + b + c, usage),
        line("2", 2.0, a + b, ',"prompt_tokens":144,"max_output_tokens":7'),
    )

    traffic = logged_traffic(read_decision_log(log), "yesterday")

    one, two = traffic.requests
    assert traffic.page_tokens == round(64 * (210 + 144) / (202 + 138))
    assert list(one.pages[:2]) == list(two.pages[:2])
    assert len(set(one.pages) | set(two.pages)) == len(one.pages) + len(two.pages) - 2
    assert (one.output_tokens, two.output_tokens) == (100, 7)
    assert one.prompt_tokens // traffic.page_tokens == 3
    assert len(one.pages) == (one.prompt_tokens + one.output_tokens) // traffic.page_tokens


def test_logs_of_two_versions_are_not_mixed(tmp_path: Path) -> None:
    for name, head in (("decisions-1", OLD_HEAD), ("decisions-2", HEAD)):
        (tmp_path / f"{name}.jsonl.zst").write_bytes(zstandard.compress(f"{head}\n{line()}\n".encode()))

    with pytest.raises(TraceError, match=r"decisions-2.*'trieway_decision_log': 2 here, 1 in the files before"):
        read_decision_log(tmp_path)


def test_equal_blocks_of_version_1_become_blocks_that_grow(tmp_path: Path) -> None:
    units = "".join(f"{unit:016x}" for unit in range(1, 24))

    (found,) = read_decision_log(written(tmp_path / "log.jsonl", OLD_HEAD, line(blocks=units)))

    assert found.key.blocks == [*range(1, 17), 18, 20, 22]


def test_a_block_is_as_many_pages_as_it_has_units(tmp_path: Path) -> None:
    shared = "".join(f"{block:016x}" for block in range(1, 19))
    lines = [line("a", blocks=shared + f"{77:016x}"), line("b", blocks=shared + f"{88:016x}"), line("c", blocks=shared)]
    requests = read_decision_log(written(tmp_path / "log.jsonl", HEAD, *lines))

    one, other, start = (request.pages for request in logged_traffic(requests, "log").requests)

    assert one[:20] == other[:20] == start[:20]  # 16 blocks of one page, 2 of two
    assert set(one[:20]).isdisjoint(one[20:])
    assert one[20:22] != other[20:22]
    assert len(set(one)) == len(one) >= 22
