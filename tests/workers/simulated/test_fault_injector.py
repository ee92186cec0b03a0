"""What each fault does to a client, and the admin route that sets them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest

STREAM = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20, "stream": True}
LONG = "a prompt that is long enough to be found again in the prefix cache of this worker; " * 4


async def raw(worker: Any, path: str, body: dict[str, Any]) -> bytes:
    """Everything the worker sends for one request until it closes the connection, headers included."""
    reader, writer = await worker.connect()
    data = json.dumps(body).encode()
    writer.write(
        b"POST %s HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(data))
    )
    writer.write(data)
    try:
        async with asyncio.timeout(30):
            return bytes(await reader.read())
    finally:
        writer.close()


async def test_error_answers_the_status_for_model_calls_only(start_worker: Any) -> None:
    async with start_worker([{"kind": "error", "status": 503}]) as worker:
        response = await worker.chat("x")
        assert response.status_code == 503
        assert response.json()["code"] == 503
        assert (await worker.get("/v1/models")).status_code == 200


async def test_a_fault_with_a_probability_strikes_about_that_often_and_the_same_for_the_same_seed(
    start_worker: Any,
) -> None:
    async def struck() -> list[bool]:
        async with start_worker([{"kind": "error", "probability": 0.5}], seed=3) as worker:
            return [(await worker.chat("x", max_tokens=1)).status_code == 500 for _ in range(60)]

    first = await struck()
    assert 15 <= sum(first) <= 45
    assert await struck() == first


async def test_hang_never_answers_and_ends_when_the_client_leaves(start_worker: Any) -> None:
    async with start_worker([{"kind": "hang"}]) as worker:
        with pytest.raises(httpx.ReadTimeout):
            await worker.post("/v1/chat/completions", STREAM, timeout=0.2)
        await worker.client.aclose()

        async def settled() -> bool:
            return not worker.server._connections

        await worker.until(settled)


async def test_a_hang_with_seconds_answers_after_them(start_worker: Any) -> None:
    async with start_worker([{"kind": "hang", "seconds": 0.2}]) as worker:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        assert (await worker.chat("x", max_tokens=1)).status_code == 200
        assert loop.time() - started_s >= 0.15


async def test_reset_breaks_a_stream_after_its_events(start_worker: Any) -> None:
    async with start_worker([{"kind": "reset", "after_events": 4}], speed=5) as worker:
        received: list[bytes] = []

        async def read() -> None:
            async with worker.client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
                assert response.status_code == 200
                async for chunk in response.aiter_raw():
                    received.append(chunk)  # noqa: PERF401 - what came before the reset must be kept

        with pytest.raises(httpx.ReadError):
            await read()
        assert b"".join(received).count(b"data: ") <= 5
        assert b"[DONE]" not in b"".join(received)


async def test_reset_replaces_a_whole_answer(start_worker: Any) -> None:
    async with start_worker([{"kind": "reset"}]) as worker:
        with pytest.raises(httpx.ReadError):
            await worker.chat("x", max_tokens=2)


async def test_a_stream_that_breaks_frees_its_slot(start_worker: Any) -> None:
    async with start_worker([{"kind": "reset", "after_events": 2, "path": "/v1/chat"}], speed=1) as worker:
        with pytest.raises(httpx.ReadError):
            await worker.post("/v1/chat/completions", {**STREAM, "max_tokens": 100_000})

        async def idle() -> bool:
            return (await worker.loads())["num_running_reqs"] == 0

        await worker.until(idle)


async def test_cut_closes_inside_the_stream_without_its_end(start_worker: Any) -> None:
    async with start_worker([{"kind": "cut", "after_events": 3}], speed=5) as worker:
        data = await raw(worker, "/v1/chat/completions", STREAM)
        assert 3 <= data.count(b"data: ") <= 5
        assert not data.endswith(b"0\r\n\r\n")


async def test_cut_stops_in_the_middle_of_a_whole_answer(start_worker: Any) -> None:
    async with start_worker([{"kind": "cut"}]) as worker:
        with pytest.raises(httpx.RemoteProtocolError):
            await worker.chat("x", max_tokens=200)


async def test_truncate_ends_the_stream_in_order_but_without_done(start_worker: Any) -> None:
    async with start_worker([{"kind": "truncate", "after_events": 3}], speed=5) as worker:
        response = await worker.post("/v1/chat/completions", STREAM)
        assert 3 <= response.text.count("data: ") <= 5
        assert "[DONE]" not in response.text
        assert (await worker.get("/v1/models")).status_code == 200


async def test_wrong_length_promises_more_than_it_sends(start_worker: Any) -> None:
    async with start_worker([{"kind": "wrong_length", "extra_bytes": 7}]) as worker:
        data = await raw(worker, "/v1/chat/completions", {**STREAM, "stream": False})
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % (len(body) + 7) in head + b"\r\n"


async def test_slow_bytes_arrive_slowly_and_whole(start_worker: Any) -> None:
    async with start_worker([{"kind": "slow_bytes", "bytes_per_s": 2000.0}]) as worker:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        response = await worker.chat("x", max_tokens=2)
        assert response.status_code == 200
        assert loop.time() - started_s >= len(response.content) / 2000.0 / 2


async def test_slow_start_is_not_ready_and_refuses_calls_until_it_is_over(start_worker: Any) -> None:
    async with start_worker([{"kind": "slow_start", "for_s": 0.3}]) as worker:
        assert (await worker.get("/health")).status_code == 503
        assert (await worker.get("/ready")).status_code == 503
        assert (await worker.chat("x", max_tokens=1)).status_code == 503

        async def ready() -> bool:
            return bool((await worker.get("/ready")).status_code == 200)

        await worker.until(ready)
        assert (await worker.chat("x", max_tokens=1)).status_code == 200


async def test_stalled_health_leaves_generation_alone(start_worker: Any) -> None:
    async with start_worker([{"kind": "stall_health"}]) as worker:
        with pytest.raises(httpx.ReadTimeout):
            await worker.get("/health", timeout=0.2)
        assert (await worker.chat("x", max_tokens=1)).status_code == 200


async def test_stale_load_stops_counting(start_worker: Any) -> None:
    async with start_worker([{"kind": "stale_load"}], speed=1) as worker:
        body = {"text": "x", "rid": "a", "sampling_params": {"max_new_tokens": 100_000, "ignore_eos": True}}
        task = asyncio.ensure_future(worker.post("/generate", body))

        async def really_running() -> bool:
            return not worker.server.worker.ranks[0].idle

        await worker.until(really_running)
        assert (await worker.loads())["num_running_reqs"] == 0
        await worker.client.delete("/simulated/faults")
        await worker.until(lambda: running(worker))
        await worker.post("/abort_request", {"rid": "a"})
        await task


async def running(worker: Any) -> bool:
    return bool((await worker.loads())["num_running_reqs"] == 1)


async def test_refuse_closes_the_port_and_opens_it_again(start_worker: Any) -> None:
    async with start_worker() as worker:
        assert (await worker.post("/simulated/faults", {"kind": "refuse", "for_s": 0.3})).status_code == 200

        async def refused() -> bool:
            try:
                _, writer = await worker.connect()
            except ConnectionRefusedError:
                return True
            writer.close()
            return False

        await worker.until(refused)
        assert (await worker.get("/v1/models")).status_code == 200  # the connection that was open lives on

        async def accepted() -> bool:
            return not await refused()

        await worker.until(accepted)


async def test_flush_cache_happens_at_its_time(start_worker: Any) -> None:
    async with start_worker() as worker:
        await worker.chat(LONG, max_tokens=1)
        assert (await worker.chat(LONG, max_tokens=1)).json()["usage"]["prompt_tokens_details"]
        await worker.post("/simulated/faults", {"kind": "flush_cache"})
        await asyncio.sleep(0)  # the flush is the injector's next step
        assert (await worker.chat(LONG, max_tokens=1)).json()["usage"]["prompt_tokens_details"] is None


async def test_restart_resets_connections_ends_requests_and_comes_back_empty_on_the_same_port(
    start_worker: Any,
) -> None:
    async with start_worker(speed=1) as worker:
        await worker.chat(LONG, max_tokens=1)
        body = {"text": "x", "sampling_params": {"max_new_tokens": 100_000, "ignore_eos": True}}
        task = asyncio.ensure_future(worker.post("/generate", body))
        await worker.until(lambda: running(worker))
        with contextlib.suppress(httpx.TransportError):  # the reset may overtake the answer
            await worker.post("/simulated/faults", {"kind": "restart", "for_s": 0.2})
        with pytest.raises(httpx.TransportError):
            await task

        async def back() -> bool:
            try:
                return bool((await worker.get("/ready")).status_code == 200)
            except httpx.TransportError:
                return False

        await worker.until(back)
        assert (await worker.loads())["num_running_reqs"] == 0
        assert (await worker.chat(LONG, max_tokens=1)).json()["usage"]["prompt_tokens_details"] is None


async def test_faults_can_be_listed_added_and_removed(start_worker: Any) -> None:
    async with start_worker() as worker:
        added = (await worker.post("/simulated/faults", [{"kind": "error"}, {"kind": "hang", "at_s": 100}])).json()
        assert [(fault["kind"], fault["active"]) for fault in added["faults"]] == [("error", True), ("hang", False)]
        assert (await worker.chat("x")).status_code == 500
        assert len((await worker.get("/simulated/faults")).json()["faults"]) == 2
        assert (await worker.client.delete("/simulated/faults")).json()["faults"] == []
        assert (await worker.chat("x", max_tokens=1)).status_code == 200
        assert (await worker.client.put("/simulated/faults")).status_code == 405


@pytest.mark.parametrize("content", [b"{", b'{"kind": "hag"}', b'[{"kind": "hang", "x": 1}]', b"5"])
async def test_a_bad_fault_is_refused_and_changes_nothing(worker: Any, content: bytes) -> None:
    response = await worker.client.post("/simulated/faults", content=content)
    assert response.status_code == 400
    assert response.json()["error"]["message"]
    assert (await worker.get("/simulated/faults")).json()["faults"] == []
