"""The dashboard as a person has it: a real browser in front of a running router with upstreams that a test scripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from chromium import Page, browser, chromium_path
from router_fakes import Call, Running, answer, config, running, upstream

pytestmark = [
    pytest.mark.skipif(chromium_path() is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.timeout(180),
    pytest.mark.slow,
]
SHARED = "You are a careful assistant. " * 60


def script_with_usage(cached: int) -> Any:
    async def script(call: Call, writer: asyncio.StreamWriter) -> None:
        prompt = len(call.body) // 4
        usage = {
            "prompt_tokens": prompt, "completion_tokens": 5, "total_tokens": prompt + 5,
            "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        }  # fmt: skip
        await answer({"id": "x", "choices": [], "usage": usage})(call, writer)

    return script


async def ask(router: Running, text: str, **headers: str) -> None:
    body = {"model": "m", "messages": [{"role": "system", "content": SHARED}, {"role": "user", "content": text}]}
    await router.client.post("/v1/chat/completions", content=json.dumps(body), headers=headers)


@asynccontextmanager
async def stage(**settings: Any) -> AsyncIterator[tuple[Running, Page]]:
    """Two upstreams, a router with expected_ttft, a browser."""
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(upstream(script_with_usage(100))) for _ in range(2)]
        router = await stack.enter_async_context(
            running(config(*(up.url for up in ups), **({"policy": "expected_ttft"} | settings)))
        )
        page = await stack.enter_async_context(browser())
        yield router, page


async def text_of(page: Page, selector: str) -> str:
    found: str = await page.run(f"document.querySelector({selector!r}).innerText")
    return found


async def test_it_shows_what_happened_and_why_without_loading_anything_from_outside() -> None:
    async with stage() as (router, page):
        for number in range(8):
            await ask(router, f"question {number}", **{"x-request-id": f"asked-{number}"})
        await page.open(f"http://127.0.0.1:{router.port}/dashboard")
        await page.until("document.querySelectorAll('#decisions tbody tr').length === 8")
        await page.until("document.querySelectorAll('#why .cand').length === 2")

        assert "w1" in await text_of(page, "#fleet")
        assert "asked-7" in await text_of(page, "#why")
        assert await page.run("document.querySelectorAll('.cand.chosen').length") == 1
        assert "lowest cost" in await text_of(page, "#decisions")
        assert await page.run("document.querySelectorAll('#prefixes svg rect').length") >= 2
        assert await page.run("document.querySelectorAll('#predictions circle').length") >= 8
        await page.until("document.querySelectorAll('#traffic svg path').length >= 4")
        assert "trieway experiment start" in await text_of(page, "#experiment")
        assert page.console_errors == []
        assert {url.split("/")[2] for url in page.requested if not url.startswith("data:")} == {
            f"127.0.0.1:{router.port}"
        }


async def test_it_updates_by_itself_and_says_when_the_router_is_gone() -> None:
    async with stage() as (router, page):
        await page.open(f"http://127.0.0.1:{router.port}/dashboard")
        await page.until("document.querySelector('#decisions').innerText.includes('Nothing decided yet')")
        await ask(router, "hello", **{"x-request-id": "late"})

        await page.until("document.querySelector('#why').innerText.includes('late')")
        await page.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0,
                        uploadThroughput=0)  # fmt: skip
        await page.until("document.querySelector('#live').innerText.includes('no answer')")
        await page.send("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1,
                        uploadThroughput=-1)  # fmt: skip
        await page.until("document.querySelector('#live').innerText === 'live'")


async def test_it_is_usable_by_keyboard_alone() -> None:
    async with stage() as (router, page):
        for number in range(4):
            await ask(router, f"question {number}", **{"x-request-id": f"asked-{number}"})
        await page.open(f"http://127.0.0.1:{router.port}/dashboard")
        await page.until("document.querySelector('#why').innerText.includes('asked-3')")

        await page.press("j")
        await page.until("document.querySelector('#why').innerText.includes('asked-2')")
        await page.press("ArrowDown")
        await page.until("document.querySelector('#why').innerText.includes('asked-1')")
        assert await page.run("document.activeElement.dataset.id") == "asked-1"
        await page.press("k")
        await page.until("document.querySelector('#why').innerText.includes('asked-2')")
        await page.press("Escape")
        await page.until("document.querySelector('#why').innerText.includes('asked-3')")
        await page.press("t")
        assert await page.run("document.documentElement.dataset.theme") == "light"
        await page.press("p")
        assert await page.run("document.querySelector('#live').innerText") == "paused"
        await page.press("?")
        assert await page.run("document.querySelector('#help').open")
        unnamed = await page.run(
            "[...document.querySelectorAll('button, input, svg')].filter((e) => !(e.textContent || e.ariaLabel || "
            "e.getAttribute('aria-label') || e.labels?.length || e.ariaHidden === 'true')).length"
        )
        assert unnamed == 0


@pytest.mark.parametrize("width", [360, 768, 1440])
async def test_nothing_is_cut_off_at_any_width(width: int) -> None:
    async with stage(shadow={"policies": ["round_robin", "prefix_match"]}) as (router, page):
        start = {"arms": ["control=round_robin", "treatment=expected_ttft"], "warmup_s": 0}
        (await router.client.post("/experiment", json=start)).raise_for_status()
        for number in range(6):
            await ask(router, f"question {number}", **{"x-request-id": f"a-rather-long-request-id-{number}" * 2})
        await page.open(f"http://127.0.0.1:{router.port}/dashboard", width=width, height=900, phone=width < 500)
        await page.until("document.querySelectorAll('#decisions tbody tr').length === 6")
        await page.until("document.querySelector('#why').innerText.includes('what happened')")

        assert await page.run("document.documentElement.scrollWidth") <= width
        assert "treatment" in await text_of(page, "#experiment")
        assert "round_robin" in await text_of(page, "#shadows")
        cut = await page.run(
            "[...document.querySelectorAll('section')].filter((e) => e.scrollWidth > e.clientWidth + 1)"
            ".map((e) => e.id)"
        )
        assert cut == []


async def test_what_a_client_wrote_is_shown_as_text_and_never_run() -> None:
    async with stage() as (router, page):
        evil = "<img src=x onerror=document.title='owned'>"
        await ask(router, "hello", **{"x-request-id": evil, "x-session-id": evil})
        await page.open(f"http://127.0.0.1:{router.port}/dashboard")
        await page.until("document.querySelector('#why').innerText.includes('<img src=x')")

        assert "owned" not in await page.run("document.title")
        assert await page.run("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_text_has_enough_contrast_in_both_themes(theme: str) -> None:
    """WCAG AA: 4.5 to 1 between every text colour and the panel it stands on."""
    async with stage() as (router, page):
        await page.open(f"http://127.0.0.1:{router.port}/dashboard?theme={theme}")
        await page.until("data !== null")
        ratios = await page.run(
            """(() => {
              const style = getComputedStyle(document.documentElement);
              const light = (name) => {
                const hex = style.getPropertyValue(name).trim().slice(1);
                const part = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
                const linear = part.map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
              };
              const panel = light("--panel");
              const names = ["--ink", "--soft", "--faint", "--accent", "--bad", "--warn", "--good"];
              return Object.fromEntries(names.map((name) => {
                const text = light(name);
                return [name, (Math.max(text, panel) + 0.05) / (Math.min(text, panel) + 0.05)];
              }));
            })()"""
        )

        assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
