"""What the dashboard is told: the fleet as it is, predictions beside truth, who holds which prefix."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router_fakes import Call, Running, answer, config, running, upstream

SHARED = "Be careful and kind. " * 60


async def usage(call: Call, writer: asyncio.StreamWriter) -> None:
    counted = {"prompt_tokens": 400, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 300}}
    await answer({"id": "x", "choices": [], "usage": counted})(call, writer)


async def ask(router: Running, text: str) -> None:
    messages = [{"role": "system", "content": SHARED}, {"role": "user", "content": text}]
    await router.client.post("/v1/chat/completions", content=json.dumps({"model": "m", "messages": messages}))


async def page(router: Running) -> dict[str, Any]:
    answered = await router.client.get("/dashboard/data")
    assert answered.status_code == 200
    data: dict[str, Any] = answered.json()
    return data


@pytest.mark.parametrize("policy", ["expected_ttft", "round_robin"])
async def test_it_says_who_holds_the_hot_prefix_and_how_it_knows(policy: str) -> None:
    async with upstream(usage) as one, upstream(usage) as two:
        async with running(config(one.url, two.url, policy=policy)) as router:
            for number in range(4):
                await ask(router, f"question {number}")
            seen = await page(router)

    (root,) = seen["prefixes"]["roots"]
    served = {each["worker"] for each in seen["decisions"]}
    assert seen["prefixes"]["source"] == ("index" if policy == "expected_ttft" else "served")
    assert root["requests"] == 4
    assert root["end_tokens"] > 250
    assert {worker for worker, share in root["workers"].items() if share > 0.99} == served
    assert len(served) == (1 if policy == "expected_ttft" else 2)


async def test_predictions_stand_beside_what_came_true_only_where_there_was_one() -> None:
    async with upstream(usage) as one:
        async with running(config(one.url, policy="round_robin")) as router:
            await ask(router, "x")
            guessed = await page(router)
        async with running(config(one.url, policy="expected_ttft")) as router:
            await ask(router, "x")
            predicted = await page(router)

    assert guessed["predictions"] == {"match": [], "ttft": []}
    assert guessed["decisions"][0]["expected_match_tokens"] is None
    assert predicted["predictions"]["match"] == [[0, 300, "w1"]]
    assert len(predicted["predictions"]["ttft"]) == 1


async def test_the_page_is_made_once_a_second_however_many_look(monkeypatch: pytest.MonkeyPatch) -> None:
    from router.dashboard import views

    made = 0
    real = views.DashboardViews._make

    def counted(self: views.DashboardViews) -> dict[str, Any]:
        nonlocal made
        made += 1
        return real(self)

    monkeypatch.setattr(views, "KEPT_S", 1000.0)
    monkeypatch.setattr(views.DashboardViews, "_make", counted)
    async with upstream() as one, running(config(one.url)) as router:
        await asyncio.gather(*(page(router) for _ in range(20)))

    assert made == 1


async def test_the_page_itself_forbids_everything_from_outside() -> None:
    async with upstream() as one, running(config(one.url)) as router:
        shown = await router.client.get("/dashboard")

    assert shown.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    for outside in ("http://", "https://", "//cdn", "@import", "<link rel=\"stylesheet"):
        assert outside not in shown.text.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1:30000", "")
