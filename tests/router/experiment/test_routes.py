"""Experiments over HTTP and by command: started, watched, stopped, and refused with the reason."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli import cli, commands
from router_fakes import Running, config, running, upstream

for command in commands:
    cli.add_command(command)
ARMS = {"arms": ["control=round_robin", "treatment=prefix_match"], "warmup_s": 0}


async def trieway(router: Running, *arguments: str) -> Result:
    """Run a command in a thread, while this loop serves it."""
    url = f"http://127.0.0.1:{router.port}"
    return await asyncio.to_thread(CliRunner().invoke, cli, [*arguments, "--url", url])


async def ask(router: Running, chat: dict[str, Any], session: str) -> dict[str, Any]:
    headers = {"x-session-id": session, "x-request-id": session}
    (await router.client.post("/v1/chat/completions", json=chat, headers=headers)).raise_for_status()
    found: dict[str, Any] = (await router.client.get(f"/explain/{session}")).json()
    return found


async def test_live_traffic_is_split_between_arms_with_workers_of_their_own(chat: dict[str, Any]) -> None:
    async with upstream() as one, upstream() as two, running(config(one.url, two.url)) as router:
        started = await router.client.post("/experiment", json=ARMS)
        asked = [await ask(router, chat, f"s{number}") for number in range(24)]
        shown = (await router.client.get("/experiment")).json()
        stopped = (await router.client.delete("/experiment")).json()
        after = await ask(router, chat, "after")

    assert started.status_code == 201
    assert {(each["outcome"]["arm"], each["outcome"]["worker"], each["outcome"]["policy"]) for each in asked} == {
        ("control", "w1", "round_robin"), ("treatment", "w2", "prefix_match"),
    }  # fmt: skip
    assert all(len(each["attempts"][0]["candidates"]) == 1 for each in asked)
    assert sum(arm["requests"] for arm in shown["running"]["arms"]) == 24
    assert shown["running"]["isolation"] == "split"
    assert stopped["state"] == "stopped"
    assert (after["outcome"]["arm"], after["outcome"]["policy"]) == (None, "round_robin")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"arms": ["a=round_robin"]}, 400, "at least two arms"),
        ({"arms": ["a=round_robin", "b=nope"]}, 400, "no policy 'nope'"),
        ({"arms": ["a=round_robin@0.5", "b=random@0.6"]}, 400, "add up to 1.1"),
        ({"arms": ["a=random", "b=random", "c=random"], "isolation": "split"}, 400, "cannot serve 3 arms"),
        (ARMS | {"alpha": 2}, 400, "alpha"),
        (ARMS | {"isolation": "sometimes"}, 400, "isolation"),
        (ARMS | {"colour": "red"}, 400, "no field 'colour'"),
        (ARMS | {"primary": "beauty"}, 400, "primary must be one of"),
        ([], 400, "must be a JSON object"),
    ],
)
async def test_what_cannot_work_is_refused_with_the_reason_before_it_starts(
    body: Any, status: int, said: str, chat: dict[str, Any]
) -> None:
    async with upstream() as one, upstream() as two, running(config(one.url, two.url)) as router:
        refused = await router.client.post("/experiment", json=body)
        nothing = (await router.client.get("/experiment")).json()

    assert refused.status_code == status
    assert said in refused.json()["error"]["message"]
    assert nothing == {"running": None, "past": []}


async def test_a_page_of_another_site_cannot_start_one(chat: dict[str, Any]) -> None:
    """A browser sends text/plain across sites without asking; it asks before it sends application/json."""
    async with upstream() as one, upstream() as two, running(config(one.url, two.url)) as router:
        refused = await router.client.post(
            "/experiment", content=json.dumps(ARMS), headers={"content-type": "text/plain"}
        )

    assert refused.status_code == 400
    assert "content-type" in refused.json()["error"]["message"]


async def test_it_is_started_by_configuration_too(chat: dict[str, Any]) -> None:
    settings = config("http://127.0.0.1:1", "http://127.0.0.1:2", experiment=ARMS)
    async with running(settings, ready=0) as router:
        shown = (await router.client.get("/experiment")).json()

    assert [arm["name"] for arm in shown["running"]["arms"]] == ["control", "treatment"]


async def test_the_command_starts_shows_and_stops(chat: dict[str, Any]) -> None:
    async with upstream() as one, upstream() as two, running(config(one.url, two.url)) as router:
        nothing = await trieway(router, "experiment", "status")
        arms = ("--arm", "a=round_robin", "--arm", "b=prefix_match:load_slack=2", "--set", "warmup_s=0")
        started = await trieway(router, "experiment", "start", *arms)
        again = await trieway(router, "experiment", "start", *arms)
        for number in range(6):
            await ask(router, chat, f"s{number}")
        status = await trieway(router, "experiment", "status")
        as_json = await trieway(router, "experiment", "status", "--json")
        stopped = await trieway(router, "experiment", "stop")
        explained = await trieway(router, "explain", "s1")
        unknown = await trieway(router, "explain", "nobody")

    assert (nothing.exit_code, started.exit_code, status.exit_code, stopped.exit_code) == (1, 0, 0, 0)
    assert "prefix_match:load_slack=2" in started.output
    assert again.exit_code == 1
    assert "Stop it first" in again.output
    assert "share their KV caches" in " ".join(status.output.split())
    assert json.loads(as_json.output)["state"] == "running"
    assert "stopped" in stopped.output
    assert explained.exit_code == 0
    assert "chose w" in explained.output
    assert unknown.exit_code == 1
    assert "Nothing is known of request 'nobody'" in unknown.output


def test_a_router_that_is_not_there_is_one_line() -> None:
    result = CliRunner().invoke(cli, ["explain", "x", "--url", "http://127.0.0.1:1"])

    assert result.exit_code == 1
    assert "http://127.0.0.1:1 does not answer" in result.output
