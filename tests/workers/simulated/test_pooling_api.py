"""Embeddings, rerank, score and classify answer in the real shapes, and equally for equal inputs."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest

from workers.simulated.pooling_api import EMBEDDING_DIMENSIONS


async def test_an_embedding_is_a_unit_vector_the_same_for_the_same_text(worker: Any) -> None:
    answer = (await worker.post("/v1/embeddings", {"input": ["one", "two", "one"], "model": "m"})).json()
    vectors = [item["embedding"] for item in answer["data"]]
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert math.isclose(sum(value * value for value in vectors[0]), 1.0)
    assert len(vectors[0]) == EMBEDDING_DIMENSIONS
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 3


async def test_base64_holds_the_same_numbers_as_32_bit_floats(worker: Any) -> None:
    body = {"input": "one", "dimensions": 8}
    plain = (await worker.post("/v1/embeddings", body)).json()["data"][0]["embedding"]
    packed = (await worker.post("/v1/embeddings", {**body, "encoding_format": "base64"})).json()
    numbers = struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"]))
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(plain, numbers, strict=True))


async def test_token_ids_and_parts_are_inputs_too(worker: Any) -> None:
    for given, count in (([1, 2, 3], 1), ([[1], [2, 3]], 2), ([{"text": "x"}], 1)):
        answer = await worker.post("/v1/embeddings", {"input": given})
        assert len(answer.json()["data"]) == count


async def test_rerank_sorts_by_score_and_keeps_the_first(worker: Any) -> None:
    body = {"query": "q", "documents": ["a", "b", "c"]}
    rows = (await worker.post("/v1/rerank", body)).json()
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert sorted(row["document"] for row in rows) == ["a", "b", "c"]
    assert all(body["documents"][row["index"]] == row["document"] for row in rows)
    top = (await worker.post("/v1/rerank", {**body, "top_n": 1, "return_documents": False})).json()
    assert [row["index"] for row in top] == [rows[0]["index"]]
    assert "document" not in top[0]


async def test_score_gives_each_item_a_distribution_over_the_labels(worker: Any) -> None:
    body = {"query": "q", "items": ["a", "b"], "label_token_ids": [5, 6, 7], "apply_softmax": True}
    answer = (await worker.post("/v1/score", body)).json()
    assert answer["object"] == "scoring"
    assert [len(scores) for scores in answer["scores"]] == [3, 3]
    assert all(math.isclose(sum(scores), 1.0) for scores in answer["scores"])
    first = (await worker.post("/v1/score", {**body, "item_first": True, "items": [[1], [2]]})).json()
    assert first["scores"] != answer["scores"]


async def test_classify_names_the_more_probable_label(worker: Any) -> None:
    for item in (await worker.post("/v1/classify", {"input": ["a", "b", "c", "d"]})).json()["data"]:
        assert math.isclose(sum(item["probs"]), 1.0)
        assert item["label"] == f"LABEL_{item['probs'].index(max(item['probs']))}"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ""}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": ["a", " "]}),
        ("/v1/embeddings", {"input": [1, "a"]}),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}),
        ("/v1/embeddings", {"input": "a", "dimensions": 9999}),
        ("/v1/embeddings", {}),
        ("/v1/rerank", {"query": "", "documents": ["a"]}),
        ("/v1/rerank", {"query": "q", "documents": []}),
        ("/v1/rerank", {"query": "q", "documents": ["a", ""]}),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}),
        ("/v1/score", {"query": "q"}),
        ("/v1/score", {"label_token_ids": [1]}),
        ("/v1/classify", {"input": []}),
    ],
    ids=str,
)
async def test_bad_inputs_get_400(worker: Any, path: str, body: dict[str, Any]) -> None:
    response = await worker.post(path, body)
    assert response.status_code == 400
    assert response.json()["message"]
