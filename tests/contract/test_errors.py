"""Bad input: status, type and fields of each kind of error, and its words where they are SGLang's own."""

from __future__ import annotations

from typing import Any

import pytest

from workers.sglang.cpu.flavours import MODEL

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
REFUSED, INVALID = "BadRequestError", "Bad Request"  # SGLang's own checks; those of its schema


def assert_error(answer: Any, kind: str, message: str | None) -> None:
    assert answer.status_code == 400, answer.text
    error = answer.json()
    assert list(error) == ["object", "message", "type", "param", "code"]
    assert (error["object"], error["type"], error["param"], error["code"]) == ("error", kind, None, 400)
    assert error["message"] == message or (message is None and error["message"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"messages": []}, REFUSED, "Messages cannot be empty."),
        ({"temperature": -1}, REFUSED, "temperature must be a non-negative finite number, got -1.0."),
        ({"top_p": 2}, REFUSED, "top_p must be in (0, 1], got 2.0."),
        ({"max_tokens": -1}, REFUSED, "max_new_tokens must be at least 0, got -1."),
        ({"min_tokens": 9, "max_tokens": 3}, REFUSED, "min_new_tokens must be in [0, max_new_tokens(3)], got 9."),
        ({"stop": ["a"] * 40}, REFUSED, "at most 32 stop strings are allowed, got 40"),
        ({"routed_dp_rank": 5}, REFUSED, "routed_dp_rank=5 out of range [0, 1)"),
        ({"tool_choice": "required"}, REFUSED, "Tools cannot be empty if tool choice is set to required."),
        ({"model": f"{MODEL}:adapter"}, REFUSED, None),
        ({"messages": None}, INVALID, None),
        ({"messages": "x"}, INVALID, None),
        ({"messages": [{"role": "bogus", "content": "x"}]}, INVALID, None),
        ({"messages": [{"role": "user", "content": 5}]}, INVALID, None),
        ({"messages": [{"role": "user", "content": [{"type": "bogus"}]}]}, INVALID, None),
        ({"max_tokens": "many"}, INVALID, None),
        ({"stream_options": "x"}, INVALID, None),
        ({"response_format": {"type": "bogus"}}, INVALID, None),
    ],
    ids=str,
)
def test_a_bad_chat_request_is_a_400_also_for_a_stream(
    worker: Any, fields: dict[str, Any], kind: str, message: str | None, stream: bool
) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": stream}
    assert_error(worker.post(CHAT, {**body, **fields}), kind, message)


def test_no_choices_at_all_cannot_be_asked_for(worker: Any) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "n": 0}
    assert_error(worker.post(CHAT, body), "BadRequest", None)
    streamed = worker.post(CHAT, {**body, "stream": True})
    assert streamed.status_code == (400 if worker.differs("`n` below 1") else 200)


def test_a_grammar_that_cannot_be_compiled_is_a_400_but_may_come_inside_a_stream(worker: Any) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "regex": "("}
    assert_error(worker.post(CHAT, body), REFUSED, None)
    streamed = worker.post(CHAT, {**body, "stream": True})
    if worker.differs("A grammar that cannot be compiled, in a stream"):
        assert_error(streamed, REFUSED, None)
    else:
        assert '"code": 400' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"prompt": ""}, REFUSED, "Prompt cannot be empty"),
        ({"prompt": []}, REFUSED, "Prompt cannot be empty"),
        ({}, INVALID, None),
        ({"prompt": "a", "max_tokens": 0}, INVALID, None),
        ({"prompt": ["a", 5]}, INVALID, None),
        ({"prompt": "a", "n": 0}, "BadRequest", None),
    ],
    ids=str,
)
def test_a_bad_completion_request_is_a_400(worker: Any, fields: dict[str, Any], kind: str, message: str | None) -> None:
    assert_error(worker.post("/v1/completions", {"model": MODEL, "max_tokens": 2, **fields}), kind, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "Either text, input_ids or input_embeds should be provided."),
        ({"text": ""}, "texts cannot be empty and tokenizer must be initialized"),
        ({"input_ids": []}, "input_ids cannot be empty."),
        ({"text": "a", "sampling_params": {"temperature": -1}}, "temperature must be a non-negative finite number"),
        ({"text": "a", "routed_dp_rank": 3}, "routed_dp_rank=3 out of range [0, 1)"),
        ({"text": "a", "sampling_params": {"regex": "("}}, ""),
        ({"text": "a", "sampling_params": {"json_schema": "{"}}, ""),
    ],
    ids=str,
)
def test_generate_answers_bad_input_in_its_own_shape(worker: Any, body: dict[str, Any], message: str) -> None:
    answer = worker.post("/generate", body)

    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert list(answer.json()["error"]) == ["message"]
    assert message in answer.json()["error"]["message"]


def test_generate_reports_bad_input_inside_the_stream_that_was_asked_for(worker: Any) -> None:
    (event,) = worker.events("/generate", {"text": "a", "sampling_params": {"temperature": -1}})
    message = event["error"].pop("message")

    assert event["error"] == {"type": "invalid_request_error", "code": 400, "retryable": False}
    assert "temperature must be a non-negative finite number" in message


def test_an_unknown_sampling_parameter_of_generate_is_a_500_and_an_unknown_field_is_ignored(worker: Any) -> None:
    answer = worker.post("/generate", {"text": "a", "sampling_params": {"bogus": 1}})

    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert worker.generate("a", bogus=1)["meta_info"]["completion_tokens"] == 1


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/generate"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"messages":'])
def test_a_body_that_is_no_json_is_a_400(worker: Any, path: str, content: bytes) -> None:
    assert_error(worker.client.post(path, content=content, headers=JSON), INVALID, None)


@pytest.mark.parametrize("content", [b"[]", b"null", b"5"])
def test_a_chat_body_that_is_no_object_is_an_error(worker: Any, content: bytes) -> None:
    defect = "A JSON array as the body of a chat request; an unknown section in `/v1/loads?include=`"
    answer = worker.client.post(CHAT, content=content, headers=JSON)
    assert answer.status_code == (400 if worker.differs(defect) else 500)


def test_the_openai_routes_take_nothing_but_json(worker: Any) -> None:
    content = b'{"messages":[{"role":"user","content":"x"}],"max_tokens":2}'
    for headers in ({"content-type": "text/plain"}, {}):
        answer = worker.client.post(CHAT, content=content, headers=headers)
        assert_error(answer, INVALID, None)


@pytest.mark.parametrize("length", [8300, 17_000], ids=["longer than the cache", "longer than the context"])
def test_a_prompt_that_can_never_fit_is_refused(worker: Any, length: int) -> None:
    answer = worker.post("/generate", {"input_ids": [5] * length, "sampling_params": {"max_new_tokens": 1}})

    assert answer.status_code == 400
    assert str(length) in answer.json()["error"]["message"]


def test_a_chat_that_can_never_fit_is_refused(worker: Any) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 40_000}]}
    assert_error(worker.post(CHAT, body), REFUSED, None)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/generate", "/v1/embeddings", "/abort_request"])
def test_a_generating_route_by_get_is_a_405(worker: Any, path: str) -> None:
    answer = worker.get(path)
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


@pytest.mark.parametrize("path", ["/nothing", "/get_load"])
def test_an_unknown_path_is_a_404(worker: Any, path: str) -> None:
    answer = worker.get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize("timeout", ["-1", "x"])
def test_a_flush_with_a_bad_timeout_is_refused(worker: Any, timeout: str) -> None:
    assert_error(worker.get(f"/flush_cache?timeout={timeout}"), INVALID, None)


def test_a_picture_is_refused_by_a_model_of_text(worker: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    answer = worker.post(CHAT, body)
    if worker.differs("Media parts"):
        assert answer.status_code == 200
    else:
        assert_error(
            answer, REFUSED, "Model only supports text input; received unsupported content type 'image_url'."
        )
