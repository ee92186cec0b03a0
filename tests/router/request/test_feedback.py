"""What workers report comes back to the policy and to the metrics, also where the client did not ask for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from router.fleet.collapse import MISSES_IN_A_ROW
from router_fakes import DONE, STREAM_HEAD, Call, Script, answer, chunk, config, event, running, upstream

CHAT = "/v1/chat/completions"
REPORTS = {"version": "0.5.21", "enable_cache_report": True}


def streamed(*events: bytes) -> Script:
    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"".join(chunk(each) for each in events) + b"0\r\n\r\n")

    return script


def usage_event(details: dict[str, Any] | None) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": details}
    return b"data: " + json.dumps({"choices": [], "usage": usage}, separators=(",", ":")).encode() + b"\n\n"


async def test_usage_is_asked_for_and_kept_from_a_client_that_did_not_ask(chat: dict[str, Any]) -> None:
    script = streamed(event("a"), usage_event({"cached_tokens": 8}) + DONE)
    async with upstream(script) as worker, running(config(worker.url)) as router:
        reply = await router.client.post(CHAT, json={**chat, "stream": True})
        metrics = (await router.client.get("/metrics")).text

    sent = json.loads(worker.calls[0].body)
    assert sent == {**chat, "stream": True, "stream_options": {"include_usage": True}}
    assert reply.content == event("a") + DONE
    assert 'trieway_cached_tokens_total{policy="round_robin",worker="w1"} 8.0' in metrics
    assert 'trieway_prompt_tokens_total{policy="round_robin",worker="w1"} 10.0' in metrics
    assert 'trieway_match_error_tokens_count{policy="round_robin",worker="w1"} 1.0' in metrics


async def test_a_client_that_asked_gets_its_usage_and_its_body_is_forwarded_as_it_is(chat: dict[str, Any]) -> None:
    script = streamed(event("a"), usage_event(None), DONE)
    body = json.dumps({**chat, "stream": True, "stream_options": {"include_usage": True}}, indent=3).encode()
    async with upstream(script) as worker, running(config(worker.url)) as router:
        reply = await router.client.post(CHAT, content=body)

    assert worker.calls[0].body == body
    assert reply.content == event("a") + usage_event(None) + DONE


async def test_asking_can_be_switched_off(chat: dict[str, Any]) -> None:
    script = streamed(event("a"), DONE)
    async with upstream(script) as worker, running(config(worker.url, dispatch={"ask_usage": False})) as router:
        await router.client.post(CHAT, json={**chat, "stream": True})

    assert "stream_options" not in json.loads(worker.calls[0].body)


async def test_silence_means_nothing_was_cached_only_from_a_worker_that_reports(chat: dict[str, Any]) -> None:
    script = streamed(event("a"), usage_event(None), DONE)
    async with upstream(script) as reporting, upstream(script) as silent:
        reporting.gets["/server_info"] = answer(REPORTS)
        silent.gets["/server_info"] = answer({**REPORTS, "enable_cache_report": False})
        async with running(config(reporting.url, silent.url)) as router:
            for _ in range(2):
                await router.client.post(CHAT, json={**chat, "stream": True})
            metrics = (await router.client.get("/metrics")).text

    told = [line for line in metrics.splitlines() if line.startswith("trieway_match_error_tokens_count{")]
    assert [float(line.rpartition(" ")[2]) for line in told if 'worker="w1"' in line] == [1.0]
    assert sum(float(line.rpartition(" ")[2]) for line in told if 'worker="w2"' in line) == 0.0


async def test_a_cache_that_was_emptied_behind_our_back_is_forgotten(chat: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 2000, "completion_tokens": 1, "prompt_tokens_details": None}
    body = {**chat, "messages": [{"role": "user", "content": "x" * 8000}]}
    async with upstream(answer({"choices": [], "usage": usage})) as one:
        one.gets["/server_info"] = answer(REPORTS)
        async with running(config(one.url, policy="prefix_match")) as router:
            replies = [
                await router.client.post(CHAT, json=body, headers={"x-trieway-explain": "1"})
                for _ in range(MISSES_IN_A_ROW + 2)
            ]

    expected = [int(reply.headers["x-trieway-match-tokens"]) for reply in replies]
    assert expected[0] == 0
    assert all(match > 1000 for match in expected[1 : MISSES_IN_A_ROW + 1])
    assert expected[MISSES_IN_A_ROW + 1] == 0


async def test_a_worker_that_comes_back_as_another_process_is_noticed(chat: dict[str, Any]) -> None:
    quick = {"interval_s": 0.05, "retry_interval_s": 0.05, "failures_to_degrade": 1}
    body = {**chat, "messages": [{"role": "user", "content": "x" * 5000}]}
    async with upstream() as one:
        one.gets["/server_info"] = answer({**REPORTS, "random_seed": 1})
        async with running(config(one.url, health=quick, policy="prefix_match")) as router:
            explain = {"x-trieway-explain": "1"}
            await router.client.post(CHAT, json=body)
            warm = await router.client.post(CHAT, json=body, headers=explain)
            one.health_status = 503
            await router.until(lambda all_: all_["w1"]["state"] == "degraded")
            one.gets["/server_info"] = answer({**REPORTS, "random_seed": 2})
            one.health_status = 200
            await router.until(lambda all_: all_["w1"]["state"] == "ready")
            cold = await router.client.post(CHAT, json=body, headers=explain)

    assert int(warm.headers["x-trieway-match-tokens"]) > 500
    assert int(cold.headers["x-trieway-match-tokens"]) == 0
