"""SGLang's control routes through the router: one worker answers or all do, and no failure is hidden."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from router.errors import BodyTooLarge, NoWorker, UnknownModel, UnknownWorker
from router.fleet.control_call import ControlCaller
from router.fleet.native import NATIVE_ROUTES, NativeConfig, Reach, native_routes
from router.fleet.registry import Registry
from router.fleet.response_homes import ResponseHomes
from router.fleet.worker import WorkerState
from router.records import FleetEvent
from router.types import CacheCleared

Answer = Callable[[httpx.Request], httpx.Response]


class Fleet:
    """Workers a, b, ... that answer through `answers` (by host name), and what the registry said."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[httpx.Request] = []
        self.events: list[FleetEvent] = []
        self.registry = Registry(lambda: 0.0)
        self.homes = ResponseHomes()
        for name in answers:
            worker = self.registry.add(f"http://{name}", name)
            self.registry.set_models(worker, ({"id": f"model-{name}"},))
            self.registry.set_state(worker, WorkerState.READY, "test")
        self.registry.listen(self.events.append)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers[request.url.host](request)

    @asynccontextmanager
    async def routed(self, max_body_bytes: int = 10_000) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.answer)) as control:
            app = FastAPI()
            caller = ControlCaller(self.registry, control)
            config = NativeConfig(timeout_s=7)
            app.include_router(native_routes(caller, self.registry, config, max_body_bytes, self.homes))
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
                yield client

    def hosts(self) -> list[str]:
        return [request.url.host for request in self.asked]


def text(body: str, status: int = 200) -> Answer:
    return lambda request: httpx.Response(status, text=body)


def dead(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def slow(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow", request=request)


async def test_one_worker_of_the_model_answers_and_its_answer_is_passed_on_as_it_is() -> None:
    fleet = Fleet(a=text("A", 418), b=text("B"))
    async with fleet.routed() as client:
        answer = await client.post("/tokenize?x=1", content=b'{"prompt": "p",  "model": "model-a"}')

    assert (answer.status_code, answer.text, answer.headers["x-trieway-worker"]) == (418, "A", "a")
    assert fleet.asked[0].content == b'{"prompt": "p",  "model": "model-a"}'
    assert str(fleet.asked[0].url) == "http://a/tokenize?x=1"


async def test_the_least_busy_worker_is_asked_and_another_when_it_cannot_be_reached() -> None:
    fleet = Fleet(a=text("A"), b=dead)
    with fleet.registry.lease(fleet.registry.get("a")):
        async with fleet.routed() as client:
            answer = await client.get("/model_info")

    assert answer.text == "A"
    assert fleet.hosts() == ["b", "a"]


async def test_when_no_worker_can_be_reached_the_error_says_so() -> None:
    async with Fleet(a=dead, b=slow).routed() as client:
        answer = await client.get("/health_generate")

    assert answer.status_code == 502
    assert answer.json()["error"]["source"] == "worker"


async def test_equal_answers_of_all_become_one() -> None:
    fleet = Fleet(a=text("Cache flushed.\n"), b=text("Cache flushed.\n"))
    async with fleet.routed() as client:
        answer = await client.post("/flush_cache")

    assert (answer.status_code, answer.text) == (200, "Cache flushed.\n")
    assert answer.headers["x-trieway-worker"] == "a, b"
    assert sorted(fleet.hosts()) == ["a", "b"]


@pytest.mark.parametrize(("status", "shown"), [(400, 400), (503, 503)])
async def test_one_failing_worker_is_the_answer(status: int, shown: int) -> None:
    fleet = Fleet(a=text("done"), b=text("busy", status))
    async with fleet.routed() as client:
        answer = await client.get("/flush_cache")

    assert answer.status_code == shown
    assert answer.json()["workers"] == {"a": {"status": 200, "body": "done"}, "b": {"status": status, "body": "busy"}}
    assert "1 of 2 workers failed; b answered" in answer.json()["error"]["message"]


async def test_workers_that_fail_differently_are_a_502_with_each_answer() -> None:
    async with Fleet(a=text("busy", 400), b=dead).routed() as client:
        answer = await client.post("/abort_request", json={"abort_all": True})

    assert answer.status_code == 502
    assert [each["status"] for each in answer.json()["workers"].values()] == [400, 502]


async def test_a_flush_is_told_to_policies_for_the_workers_that_did_it_and_no_other() -> None:
    fleet = Fleet(a=text("done"), b=text("busy", 400))
    async with fleet.routed() as client:
        await client.post("/flush_cache")
        await client.post("/start_profile")

    assert fleet.events == [CacheCleared(worker=fleet.registry.get("a").id, at_s=0.0)]


async def test_the_time_a_worker_was_asked_to_wait_is_added_to_ours() -> None:
    fleet = Fleet(a=text(""))
    async with fleet.routed() as client:
        await client.post("/flush_cache?timeout=60.0")

    assert fleet.asked[0].extensions["timeout"]["read"] == 67.0
    assert fleet.asked[0].url.query == b"timeout=60.0"


async def test_a_flush_without_a_time_waits_for_the_routers_own_health_question() -> None:
    fleet = Fleet(a=text(""))
    async with fleet.routed() as client:
        await client.post("/flush_cache?empty_cache=true")
        await client.post("/flush_cache?timeout=0")

    assert [asked.url.query for asked in fleet.asked] == [b"empty_cache=true&timeout=2", b"timeout=0"]


async def test_server_infos_are_merged_around_the_first() -> None:
    def info(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"tokenizer_path": request.url.host, "internal_states": [request.url.host]})

    async with Fleet(a=info, b=info).routed() as client:
        merged = (await client.get("/server_info")).json()

    assert merged["tokenizer_path"] == "a"
    assert merged["internal_states"] == ["a", "b"]
    assert merged["workers"]["b"]["tokenizer_path"] == "b"
    assert "decode" not in merged


async def test_loads_name_their_worker_and_a_failing_one_stands_beside_them() -> None:
    def loads(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"version": "v", "loads": [{"dp_rank": 0}, {"dp_rank": 1}]})

    async with Fleet(a=loads, b=text("no", 500)).routed() as client:
        merged = (await client.get("/v1/loads")).json()

    assert merged["loads"] == [{"worker": "a", "dp_rank": 0}, {"worker": "a", "dp_rank": 1}]
    assert merged["failed"] == {"b": {"status": 500, "body": "no"}}


async def test_loads_that_are_not_json_are_listed_as_they_are() -> None:
    async with Fleet(a=text("# TYPE x"), b=text("# TYPE y")).routed() as client:
        answer = await client.get("/v1/loads?format=prometheus")

    assert answer.json()["workers"]["b"]["body"] == "# TYPE y"


async def test_a_named_worker_alone_is_asked() -> None:
    fleet = Fleet(a=text("A"), b=text("B"))
    async with fleet.routed() as client:
        answer = await client.post("/flush_cache", headers={"x-trieway-worker": "b"})
        with pytest.raises(UnknownWorker):
            await client.post("/flush_cache", headers={"x-trieway-worker": "nobody"})

    assert answer.text == "B"
    assert fleet.hosts() == ["b"]


async def test_only_headers_that_concern_the_worker_are_taken_along_and_its_own_key_wins() -> None:
    fleet = Fleet(a=text("A"))
    fleet.registry.get("a").extra_headers = [("authorization", "Bearer worker")]
    async with fleet.routed() as client:
        await client.get("/model_info", headers={"authorization": "Bearer client", "cookie": "x", "accept": "text/odd"})

    sent = fleet.asked[0].headers
    assert (sent["authorization"], sent["accept"], "cookie" in sent) == ("Bearer worker", "text/odd", False)


async def test_workers_that_still_start_are_left_out_and_without_any_there_is_a_503() -> None:
    fleet = Fleet(a=text("A"))
    fleet.registry.add("http://c", "c")
    async with fleet.routed() as client:
        answer = await client.post("/flush_cache")
        fleet.registry.remove(fleet.registry.get("a"))
        with pytest.raises(NoWorker):
            await client.post("/flush_cache")

    assert answer.text == "A"


async def test_an_unknown_model_and_a_body_over_the_limit_are_refused() -> None:
    async with Fleet(a=text("A")).routed(max_body_bytes=100) as client:
        with pytest.raises(UnknownModel):
            await client.post("/tokenize", json={"model": "other", "prompt": "x"})
        with pytest.raises(BodyTooLarge):
            await client.post("/tokenize", content=b"x" * 101)


@pytest.mark.parametrize("row", NATIVE_ROUTES, ids=lambda row: row.path)
async def test_every_row_is_answered_by_its_methods(row: object) -> None:
    fleet = Fleet(a=text("{}"), b=text("{}"))
    [found] = [each for each in NATIVE_ROUTES if each is row]
    async with fleet.routed() as client:
        statuses = [(await client.request(method, found.path)).status_code for method in found.methods]

    assert statuses == [200] * len(found.methods)
    assert len(fleet.asked) == len(found.methods) * (1 if found.reach is Reach.ONE else 2)


async def test_a_stored_response_is_asked_of_the_server_that_made_it() -> None:
    fleet = Fleet(a=text("A"), b=text("B"))
    fleet.homes.made("resp_1", "b")
    async with fleet.routed() as client:
        shown = await client.get("/v1/responses/resp_1?include=x")
        cancelled = await client.post("/v1/responses/resp_1/cancel")

    assert (shown.text, cancelled.text) == ("B", "B")
    assert [str(request.url) for request in fleet.asked] == [
        "http://b/v1/responses/resp_1?include=x",
        "http://b/v1/responses/resp_1/cancel",
    ]


async def test_a_response_of_unknown_origin_is_looked_for_everywhere() -> None:
    fleet = Fleet(a=text("not here", 404), b=text("B"))
    async with fleet.routed() as client:
        found = await client.get("/v1/responses/resp_old")
        fleet.answers["b"] = text("not here either", 404)
        missing = await client.get("/v1/responses/resp_old")

    assert (found.status_code, found.text) == (200, "B")
    assert (missing.status_code, missing.text) == (404, "not here")


async def test_a_body_that_is_no_object_names_no_model() -> None:
    async with Fleet(a=text("A")).routed() as client:
        answer = await client.post("/detokenize", content=json.dumps([1, 2]).encode())

    assert answer.text == "A"
