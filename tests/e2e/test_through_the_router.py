"""The whole path as a user has it: real processes, the official openai client, simulated workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from ports import free_port

pytestmark = pytest.mark.slow

READY_S = 60.0


def start(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *argv], stdin=subprocess.DEVNULL)


def wait_ok(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        try:
            if httpx.get(url, timeout=5, verify=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    pytest.fail(f"{url} did not answer 200 within {READY_S} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Stack:
    url: str
    workers: list[subprocess.Popen[bytes]]
    worker_urls: list[str]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack shared by tests that leave it as it was."""
    yield from make_stack()


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """A stack for a test that breaks or changes it."""
    yield from make_stack()


def make_stack() -> Iterator[Stack]:
    """Two simulated workers and the router, stopped afterwards."""
    ports = [free_port(), free_port()]
    workers = [start("workers", "simulate", "--port", str(port), "--speed", "20") for port in ports]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    processes = list(workers)
    try:
        for url, worker in zip(urls, workers, strict=True):
            wait_ok(f"{url}/v1/models", worker)
        port = free_port()
        router = start("router", "serve", "--port", str(port), "--worker", urls[0], "--worker", f"second={urls[1]}")
        processes.append(router)
        wait_ok(f"http://127.0.0.1:{port}/ready", router)
        yield Stack(url=f"http://127.0.0.1:{port}", workers=workers, worker_urls=urls)
    finally:
        for process in reversed(processes):
            stop(process)


def test_the_official_client_works_unchanged(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        chat = client.chat.completions.create(
            model=names[0], messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
        with client.chat.completions.create(
            model=names[0],
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            chunks = list(stream)
        completion = client.completions.create(model=names[0], prompt="Once upon", max_tokens=8)
        embedding = client.embeddings.create(model=names[0], input="some text")
        with pytest.raises(openai.NotFoundError, match="not served here"):
            client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])

    assert names == ["simulated"]
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 8
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert completion.choices[0].text
    assert len(embedding.data[0].embedding) > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}),
        ("/v1/completions", {"prompt": "Once upon", "max_tokens": 4}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/responses", {"input": "Hello", "max_output_tokens": 4}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}),
        ("/v1/score", {"query": "q", "items": ["a", "b"], "label_token_ids": [1, 2]}),
        ("/generate", {"text": "Once upon", "sampling_params": {"max_new_tokens": 4}}),
    ],
)
def test_every_model_call_is_answered_as_the_worker_itself_answers_it(
    path: str, body: dict[str, Any], stack: Stack
) -> None:
    body = {"model": "simulated", **body} if path.startswith("/v1/") else body
    for url in stack.worker_urls:  # on a warm cache, so that both answers report cached tokens alike
        httpx.post(url + path, json=body, timeout=30)
    through = httpx.post(stack.url + path, json=body, timeout=30)
    direct = httpx.post(stack.worker_urls[0] + path, json=body, timeout=30)

    assert through.status_code == direct.status_code == 200, through.text
    assert shape(through.json()) == shape(direct.json())


def shape(value: Any) -> Any:
    """Keys and types of a JSON value; numbers and null look alike, since some counts are absent on a cold cache."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__ if isinstance(value, (str, bool)) else "number"


def test_a_conversation_stays_where_its_prefix_is_and_hits_the_cache(stack: Stack) -> None:
    turns = [{"role": "user", "content": "Tell me about tries. " * 100}]
    served: set[str] = set()
    cached: list[int] = []
    for _ in range(4):
        answer = httpx.post(
            f"{stack.url}/v1/chat/completions",
            json={"messages": turns, "max_tokens": 16},
            headers={"x-trieway-explain": "1", "x-request-id": "mine"},
        )
        body = answer.json()
        served.add(answer.headers["x-trieway-worker"])
        cached.append((body["usage"]["prompt_tokens_details"] or {}).get("cached_tokens", 0))
        turns += [
            {"role": "assistant", "content": body["choices"][0]["message"]["content"]},
            {"role": "user", "content": "Go on."},
        ]

        assert answer.headers["x-request-id"] == "mine"

    assert len(served) == 1
    assert cached[0] < 16
    assert cached == sorted(cached)
    assert cached[1] > 400


def test_a_killed_worker_costs_no_request(own_stack: Stack) -> None:
    os.kill(own_stack.workers[0].pid, signal.SIGKILL)
    own_stack.workers[0].wait()

    statuses = [
        httpx.post(f"{own_stack.url}/generate", json={"text": f"{i} " * 50, "sampling_params": {"max_new_tokens": 4}})
        for i in range(12)
    ]
    states = {worker["id"]: worker for worker in httpx.get(f"{own_stack.url}/workers").json()["workers"]}

    assert [answer.status_code for answer in statuses] == [200] * 12
    assert states["second"]["state"] == "ready"
    assert all(worker["in_flight"] == 0 for worker in states.values())


def test_workers_can_be_added_drained_and_removed_while_running(own_stack: Stack) -> None:
    with httpx.Client(base_url=own_stack.url) as client:
        client.post("/workers/second/drain").raise_for_status()
        served = {
            client.post("/generate", json={"text": "x"}, headers={"x-trieway-explain": "1"}).headers["x-trieway-worker"]
            for _ in range(4)
        }
        again = client.post("/workers", json={"url": own_stack.worker_urls[1]})
        gone = client.delete("/workers/second")
        back = client.post("/workers", json={"url": own_stack.worker_urls[1], "id": "third"})
        missing = client.delete("/workers/second")

    assert served == {"w1"}
    assert again.status_code == 409
    assert gone.json()["state"] == "gone"
    assert back.status_code == 201
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "worker_not_found"


def test_bad_requests_get_one_clear_error_and_the_router_goes_on(stack: Stack) -> None:
    chat = f"{stack.url}/v1/chat/completions"
    answers = [
        httpx.post(chat, content=b""),
        httpx.post(chat, content=b"{nope"),
        httpx.post(chat, json={"messages": 1}),
        httpx.get(f"{stack.url}/nothing"),
        httpx.get(chat),
        httpx.post(chat, content=b" " * 70_000_000),
        httpx.get(f"{stack.url}/health", headers={"x-long": "a" * 200_000}),
        httpx.post(f"{stack.url}/workers", json={"url": "not a url"}),
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400, 404, 405, 413, 431, 400]
    assert all(set(answer.json()["error"]) == {"message", "type", "param", "code", "source"} for answer in answers)
    assert httpx.post(f"{stack.url}/generate", json={"text": "x"}).status_code == 200
    assert 'trieway_requests_total{' in httpx.get(f"{stack.url}/metrics").text
