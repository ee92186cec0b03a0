from __future__ import annotations

import gzip
import os
from pathlib import Path

import msgspec
import pytest

from loadtests.load_request import LoadRequest
from loadtests.trace_file import TraceError
from loadtests.traces import BlockRequest, read_azure, read_blocks, read_text, read_trace

CALL = {
    "workload": "chat",
    "session_id": "s1",
    "turn": 0,
    "arrival_ms": 1500,
    "gap_ms": 250,
    "messages": [{"role": "user", "content": "hello"}],
    "tools": None,
    "expected_output_tokens": 7,
}
BLOCKS = {"timestamp": 3000, "input_length": 513, "output_length": 9, "hash_ids": [0, 4]}


def write(path: Path, *lines: object) -> Path:
    data = b"\n".join(line if isinstance(line, bytes) else msgspec.json.encode(line) for line in lines) + b"\n"
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_chat_trace_becomes_load_requests(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, CALL, b"", {**CALL, "turn": 1})
    first, second = read_text(path)
    assert first == LoadRequest(
        session_id="s1",
        turn=0,
        arrival_s=1.5,
        gap_s=0.25,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=7,
        workload="chat",
    )
    assert second.turn == 1


def test_a_tool_name_stands_for_its_list_in_the_file_beside_the_trace(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    (tmp_path / "text_tools.json").write_bytes(msgspec.json.encode({"airline": tools}))
    path = write(tmp_path / "text_dev.jsonl.gz", {**CALL, "tools": "airline"}, {**CALL, "turn": 1, "tools": tools})
    assert [request.tools for request in read_text(path)] == [tools, tools]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{nonsense", "t.jsonl:2: not JSON"),
        (b"[]", "t.jsonl:2: Expected `object`, got `array`"),
        ({**CALL, "turn": "1"}, "t.jsonl:2: field 'turn': Expected `int`, got `str`"),
        ({**CALL, "turn": 3}, "t.jsonl:2: field 'turn': session 's1' continues with 1, got 3"),
        ({key: CALL[key] for key in CALL if key != "messages"}, "t.jsonl:2: field 'messages': "),
        ({**CALL, "turn": 1, "messages": []}, "t.jsonl:2: field 'messages': must not be empty"),
        ({**CALL, "turn": 1, "messages": ["hi"]}, "t.jsonl:2: field 'messages[0]': Expected `object`, got `str`"),
        ({**CALL, "turn": 1, "expected_output_tokens": 0}, "t.jsonl:2: field 'expected_output_tokens': "),
        ({**CALL, "turn": 1, "arrival_ms": -1}, "t.jsonl:2: field 'arrival_ms': must not be negative"),
        ({**CALL, "turn": 1, "gap_ms": -1}, "t.jsonl:2: field 'gap_ms': must not be negative"),
        ({**CALL, "turn": 1, "tools": "unknown"}, "t.jsonl:2: field 'tools': 'unknown' should be in "),
    ],
)
def test_a_bad_line_names_file_line_and_field(tmp_path: Path, line: object, says: str) -> None:
    path = write(tmp_path / "t.jsonl", CALL, line)
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert says in str(raised.value)
    assert len(read_trace(path, limit=1)) == 1  # what is not used is not read


def test_a_tool_list_that_is_missing_from_its_file_is_named_with_those_there(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text('{"airline": []}')
    path = write(tmp_path / "t.jsonl", {**CALL, "tools": "retail"})
    with pytest.raises(TraceError, match=r"field 'tools': 'retail' is not in .*tools.json \(it has \['airline'\]\)"):
        read_text(path, tools=tools)
    tools.write_text("[]")
    with pytest.raises(TraceError, match=r"tools.json: Expected `object`"):
        read_text(path, tools=tools)


def test_a_mooncake_trace_becomes_block_requests(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", BLOCKS, {**BLOCKS, "session_id": 5, "turn": 2})
    plain, named = read_blocks(path)
    assert plain == BlockRequest(arrival_s=3.0, prompt_tokens=513, output_tokens=9, blocks=(0, 4))
    assert (named.session_id, named.turn) == ("5", 2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hash_ids": [0]}, "field 'hash_ids': expected 2 blocks of 512 for 513 tokens, got 1"),
        ({"input_length": 0}, "field 'input_length': must be at least 1"),
        ({"output_length": -1}, "field 'output_length': must not be negative"),
        ({"timestamp": None}, "field 'timestamp': Expected `float`, got `null`"),
    ],
)
def test_a_bad_block_line_names_file_line_and_field(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = write(tmp_path / "m.jsonl", BLOCKS, {**BLOCKS, **change})
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert f"m.jsonl:2: {says}" in str(raised.value)


def test_azure_arrivals_count_from_the_first_row(tmp_path: Path) -> None:
    rows = [
        b"TIMESTAMP,ContextTokens,GeneratedTokens",
        b"2023-11-16 18:17:03.9799600,4808,10",
        b"2023-11-16 18:17:04.2299600,100,8",
    ]
    first, second = read_trace(write(tmp_path / "a.csv.gz", *rows))
    assert isinstance(second, BlockRequest)
    assert first.arrival_s == 0
    assert (second.arrival_s, second.prompt_tokens, second.output_tokens) == (pytest.approx(0.25), 100, 8)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (b"yesterday,1,2", "a.csv:2: field 'TIMESTAMP': expected a date and time, got 'yesterday'"),
        (b"2023-11-16 18:17:03,many,2", "a.csv:2: field 'ContextTokens': expected a whole number, got 'many'"),
        (b"2023-11-16 18:17:03,1", "a.csv:2: field 'GeneratedTokens': expected a whole number, got ''"),
    ],
)
def test_a_bad_azure_row_names_file_line_and_field(tmp_path: Path, row: bytes, says: str) -> None:
    with pytest.raises(TraceError) as raised:
        read_azure(write(tmp_path / "a.csv", b"TIMESTAMP,ContextTokens,GeneratedTokens", row))
    assert says in str(raised.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="neither a chat trace"):
        read_trace(write(tmp_path / "x.jsonl", {"prompt": "hello"}))
    with pytest.raises(TraceError, match="field 'TIMESTAMP': no such column"):
        read_trace(write(tmp_path / "x.csv", b"a,b"))
    with pytest.raises(TraceError, match=r"y.jsonl: No such file"):
        read_trace(tmp_path / "y.jsonl")
    (tmp_path / "z.jsonl.gz").write_bytes(b"not gzip at all")
    with pytest.raises(TraceError, match=r"z.jsonl.gz: Not a gzipped file"):
        read_trace(tmp_path / "z.jsonl.gz")
    with pytest.raises(TraceError, match="holds no request"):
        read_blocks(write(tmp_path / "empty.jsonl"))


def test_the_development_text_trace_reads_whole() -> None:
    shared = os.environ.get("TRIEWAY_TRACES")
    folder = Path(shared) if shared else Path(__file__).parents[3] / "shared" / "traces"
    path = folder / "text_dev.jsonl.gz"
    if not path.exists():
        pytest.skip("no text_dev.jsonl.gz in $TRIEWAY_TRACES or ../shared/traces")
    requests = read_text(path)
    assert len({request.session_id for request in requests}) > 100
    assert any(request.tools for request in requests)
