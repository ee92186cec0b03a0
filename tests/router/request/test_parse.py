"""Bad bodies get one clear error each; what a worker may understand passes."""

from __future__ import annotations

import pytest

from router.errors import ClientError, InvalidBody, InvalidField
from router.request.parse import NEEDS, parse
from router.request.parsed_request import ParsedRequest

CHAT = "/v1/chat/completions"
GOOD = b'{"messages": [{"role": "user", "content": "hi"}]'


def parsed(body: bytes, path: str = CHAT, x_session_id: str | None = None) -> ParsedRequest:
    return parse(path, body, x_session_id)


@pytest.mark.parametrize("body", [b"", b"  ", b"nope", b"[]", b"1", b"\xff\xfe\xfa", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBody):
        parsed(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "messages"),
        (b'{"messages": 5}', "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": [3]}', "messages[0]"),
        (b'{"messages": [{"content": "x"}]}', "messages[0].role"),
        (GOOD[:-1] + b', {"role": 7}]}', "messages[1].role"),
        (GOOD[:-1] + b', [], {"role": 7}]}', "messages[1]"),
        (GOOD + b', "model": 7}', "model"),
        (GOOD + b', "stream": "yes"}', "stream"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parsed(body)

    assert caught.value.param == param


@pytest.mark.parametrize("path", NEEDS)
def test_every_endpoint_says_what_it_needs(path: str) -> None:
    with pytest.raises(ClientError):
        parsed(b'{"model": "m"}', path)


def test_unknown_fields_and_lenient_json_pass() -> None:
    assert parsed(GOOD + b', "new_thing": {"x": [1]}, "temperature": NaN}').model is None


def test_the_session_is_the_header_before_the_body() -> None:
    body = GOOD + b', "user": "u"}'

    assert parsed(body).session == "u"
    assert parsed(body, x_session_id="s").session == "s"
    assert parsed(GOOD + b"}").session is None


@pytest.mark.parametrize(
    "field", [b'"max_tokens": 9', b'"max_completion_tokens": 9', b'"sampling_params": {"max_new_tokens": 9}']
)
def test_the_output_limit_is_found_in_every_dialect(field: bytes) -> None:
    assert parsed(GOOD + b", " + field + b"}").max_output_tokens == 9


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"text": "x", "return_logprob": true, "logprob_start_len": -2}', "logprob_start_len"),
        (b'{"text": ["x", "y"], "return_logprob": true, "logprob_start_len": [0, -7]}', "logprob_start_len"),
        (b'{"text": "x", "return_logprob": true, "logprob_start_len": [0]}', "logprob_start_len"),
        (b'{"input_ids": [1, 2], "return_logprob": [true]}', "return_logprob"),
    ],
)
def test_what_would_end_a_workers_scheduler_is_refused_before_it_gets_there(body: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parsed(body, "/generate")

    assert caught.value.param == param


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": "x", "return_logprob": true, "logprob_start_len": -1}',
        b'{"text": ["x", "y"], "return_logprob": [true, false], "logprob_start_len": [0, -1]}',
        b'{"input_ids": [[1], [2]], "return_logprob": [true, true]}',
    ],
)
def test_log_probabilities_that_workers_can_give_pass(body: bytes) -> None:
    assert parsed(body, "/generate").body


def test_a_session_or_limit_of_the_wrong_type_is_the_workers_to_refuse() -> None:
    odd = parsed(GOOD + b', "user": 7, "session_id": "", "max_tokens": "many", "max_completion_tokens": -1}')
    native = parsed(b'{"text": "x", "sampling_params": {"max_new_tokens": null}}', "/generate")

    assert (odd.session, odd.max_output_tokens, native.max_output_tokens) == (None, None, None)


@pytest.mark.parametrize(
    ("field", "usage", "rank"),
    [
        (b'"stream_options": null', True, False),
        (b'"routed_dp_rank": 1', False, True),
        (b'"data_parallel_rank": 0', False, True),
        (b'"stream": true', False, False),
    ],
)
def test_what_is_left_without_the_body_is_all_but_the_body(field: bytes, usage: bool, rank: bool) -> None:
    parsed = parse("/v1/completions", b'{"prompt": "x", "model": "m", "user": "u", "max_tokens": 5, %b}' % field)
    left = parsed.without_body()

    assert left.body == {}
    assert (parsed.names_usage, parsed.names_rank) == (usage, rank)
    for name in ParsedRequest.__annotations__:
        assert name == "body" or getattr(left, name) == getattr(parsed, name)
