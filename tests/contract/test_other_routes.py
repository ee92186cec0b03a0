"""Tokenising, embeddings, and the routes that speak other dialects: Anthropic's messages, OpenAI's responses."""

from __future__ import annotations

from typing import Any

import pytest

from workers.sglang.cpu.flavours import MODEL

MESSAGES = [{"role": "user", "content": "hello there"}]


@pytest.mark.parametrize(
    ("tokenize", "detokenize"), [("/tokenize", "/detokenize"), ("/v1/tokenize", "/v1/detokenize")]
)
def test_text_becomes_tokens_and_text_again(worker: Any, tokenize: str, detokenize: str) -> None:
    answer = worker.ok(tokenize, {"model": MODEL, "prompt": "hello world"})

    assert list(answer) == ["tokens", "count", "max_model_len"]
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 16_384
    assert worker.ok(detokenize, {"model": MODEL, "tokens": answer["tokens"]}) == {"text": "hello world"}


def test_several_texts_are_tokenised_at_once(worker: Any) -> None:
    answer = worker.ok("/tokenize", {"prompt": ["a", "hello world"]})

    assert answer["count"] == [len(ids) for ids in answer["tokens"]]
    assert worker.ok("/detokenize", {"tokens": answer["tokens"]}) == {"text": ["a", "hello world"]}


def test_messages_are_tokenised_with_the_chat_template_that_answers_use(worker: Any) -> None:
    ids = worker.tokenize(MESSAGES)
    assert worker.chat(MESSAGES, max_tokens=1)["usage"]["prompt_tokens"] == len(ids)
    assert len(ids) > worker.ok("/tokenize", {"prompt": "hello there"})["count"]


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": MESSAGES}], ids=["neither", "both"])
def test_either_a_prompt_or_messages_are_tokenised(worker: Any, body: dict[str, Any]) -> None:
    answer = worker.post("/tokenize", body)
    assert answer.status_code == 400
    assert answer.json()["type"] == "Bad Request"


def test_token_ids_must_be_numbers(worker: Any) -> None:
    assert worker.post("/detokenize", {"tokens": "x"}).status_code == 400
    assert worker.post("/detokenize", {"tokens": [[100], 101]}).status_code == 400


def test_embeddings_have_openais_shape(embedder: Any) -> None:
    answer = embedder.ok("/v1/embeddings", {"model": MODEL, "input": ["hello", "you"]})

    assert list(answer) == ["data", "model", "object", "usage"]
    assert (answer["object"], answer["model"]) == ("list", embedder.get("/model_info").json()["model_path"])
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert {item["object"] for item in answer["data"]} == {"embedding"}
    assert all(isinstance(number, float) for number in answer["data"][0]["embedding"])
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]
    again = embedder.ok("/v1/embeddings", {"model": MODEL, "input": "hello"})["data"][0]["embedding"]
    assert again == pytest.approx(answer["data"][0]["embedding"], abs=0.01)


def test_an_embedding_of_nothing_is_refused(embedder: Any) -> None:
    answer = embedder.post("/v1/embeddings", {"model": MODEL, "input": ""})
    assert answer.status_code == 400
    assert answer.json()["object"] == "error"


def test_a_generating_model_does_not_embed(worker: Any) -> None:
    answer = worker.post("/v1/embeddings", {"model": MODEL, "input": "hello"})
    assert answer.status_code == (200 if worker.differs("Embeddings, rerank, classify") else 400)


def test_scores_have_one_row_for_each_item(worker: Any) -> None:
    body = {"model": MODEL, "query": "a", "items": ["b", "c"], "label_token_ids": [300, 301], "apply_softmax": True}
    answer = worker.ok("/v1/score", body)

    assert [len(row) for row in answer["scores"]] == [2, 2]
    assert all(sum(row) == pytest.approx(1, abs=0.01) for row in answer["scores"])


def test_anthropics_messages_are_answered_in_their_shape(worker: Any) -> None:
    body = {"model": MODEL, "max_tokens": 4, "messages": MESSAGES}
    answer = worker.ok("/v1/messages", body)
    count = worker.ok("/v1/messages/count_tokens", {"model": MODEL, "messages": MESSAGES})

    assert (answer["type"], answer["role"]) == ("message", "assistant")
    assert [block["type"] for block in answer["content"]] == ["text"]
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"]["output_tokens"] == 4
    assert count == {"input_tokens": len(worker.tokenize(MESSAGES))}


def test_responses_are_answered_in_their_shape(worker: Any) -> None:
    answer = worker.ok("/v1/responses", {"model": MODEL, "input": "hi", "max_output_tokens": 4})

    assert answer["object"] == "response"
    assert answer["id"].startswith("resp_")
    assert 0 < answer["usage"]["output_tokens"] <= 4
    assert answer["output"][0]["type"] == "message"


def test_a_response_that_is_not_there_is_a_400(worker: Any) -> None:
    assert worker.get("/v1/responses/resp_nothing").status_code == 400
