"""A server owns everything it starts, and two of them live in one process."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from workers.simulated.errors import BadOption
from workers.simulated.kv_events import KvEventsConfig
from workers.simulated.options import Options
from workers.simulated.server import running

LONG = "a prompt that is long enough to be found again in the prefix cache of this worker; " * 4


async def test_nothing_is_left_when_it_stops_in_the_middle_of_streams(start_worker: Any) -> None:
    before = asyncio.all_tasks()
    body = {"text": "x", "stream": True, "sampling_params": {"max_new_tokens": 100_000, "ignore_eos": True}}
    async with start_worker(speed=1) as worker:
        tasks = [asyncio.ensure_future(worker.post("/generate", body)) for _ in range(3)]

        async def busy() -> bool:
            return bool((await worker.loads())["num_running_reqs"] == 3)

        await worker.until(busy)
        port = worker.port
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, httpx.TransportError) for result in results)
    assert asyncio.all_tasks() == before
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_two_servers_share_nothing(start_worker: Any) -> None:
    async with start_worker() as one, start_worker() as other:
        await one.chat(LONG, max_tokens=1)
        assert (await one.chat(LONG, max_tokens=1)).json()["usage"]["prompt_tokens_details"]
        assert (await other.chat(LONG, max_tokens=1)).json()["usage"]["prompt_tokens_details"] is None


async def test_an_address_in_use_is_refused_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadOption, match=str(port)):
            async with running(Options(port=port)):
                pass
    assert asyncio.all_tasks() == before


def _taken_after_a_free_one() -> socket.socket:
    """A listening socket on a port whose predecessor is free."""
    while True:
        taken = socket.create_server(("0.0.0.0", 0))
        try:
            socket.create_server(("0.0.0.0", taken.getsockname()[1] - 1)).close()
        except OSError:
            taken.close()
        else:
            return taken


async def test_a_kv_event_port_in_use_is_refused_and_the_other_ranks_sockets_are_closed() -> None:
    with _taken_after_a_free_one() as taken:
        port = taken.getsockname()[1]
        config = KvEventsConfig(publisher="zmq", endpoint=f"tcp://*:{port - 1}")  # rank 1 meets the taken port
        for _ in range(2):
            with pytest.raises(BadOption, match=str(port)):
                async with running(Options(port=0, dp_size=2, kv_events=config)):
                    pass


async def test_an_error_in_the_body_of_the_block_is_raised_as_itself() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with running(Options(port=0)):
            raise KeyError("mine")


async def test_a_handler_that_fails_answers_500_and_the_worker_lives_on(start_worker: Any, caplog: Any) -> None:
    async with start_worker() as worker:
        whole = worker.server.worker.tokenizer
        worker.server.worker.tokenizer = None
        response = await worker.chat("x")
        assert response.status_code == 500
        assert response.json()["message"] == "Internal server error"
        assert "failed" in caplog.text
        worker.server.worker.tokenizer = whole
        assert (await worker.chat("x", max_tokens=1)).status_code == 200


async def test_hundreds_of_clients_at_once_are_all_served(start_worker: Any) -> None:
    async with start_worker() as worker:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.port}", timeout=60, limits=limits) as client:
            body = {"text": "x", "sampling_params": {"max_new_tokens": 3}}
            responses = await asyncio.gather(*(client.post("/generate", json=body) for _ in range(300)))
        assert {response.status_code for response in responses} == {200}
        assert worker.server.worker.ranks[0].idle


async def test_the_official_openai_client_works_unchanged(worker: Any) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{worker.port}/v1", api_key="none") as client:
        assert [model.id async for model in client.models.list()] == ["simulated"]
        messages: Any = [{"role": "user", "content": "hello"}]
        whole = await client.chat.completions.create(model="simulated", messages=messages, max_tokens=5)
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 5
        stream = await client.chat.completions.create(
            model="simulated", messages=messages, max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
        text = ""
        async for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage
        assert text == whole.choices[0].message.content
        assert usage is not None
        completion = await client.completions.create(model="simulated", prompt="x", max_tokens=2)
        assert completion.choices[0].finish_reason == "length"
        vectors = await client.embeddings.create(model="simulated", input=["a", "b"])
        assert len(vectors.data) == 2
        response = await client.responses.create(model="simulated", input="hello", max_output_tokens=20)
        assert response.output_text
        async with client.responses.stream(model="simulated", input="hello", max_output_tokens=20) as events:
            last = [event async for event in events][-1]
        assert last.type == "response.incomplete"  # it ran into its limit, as the whole answer did
        assert last.response.output_text == response.output_text


async def test_the_official_openai_client_gets_the_final_response_of_an_answer_without_a_limit(
    start_worker: Any,
) -> None:
    from openai import AsyncOpenAI

    async with (
        start_worker(natural_output_tokens=8) as worker,
        AsyncOpenAI(base_url=f"http://127.0.0.1:{worker.port}/v1", api_key="none") as client,
        client.responses.stream(model="simulated", input="hello") as events,
    ):
        final = await events.get_final_response()
    assert final.status == "completed"
    assert final.output_text
