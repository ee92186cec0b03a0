"""Runs experiments against a server over HTTP: native /generate, token ids in, one stream per call.

Bodies are made before the clock starts, and events are only stamped while they come; they are decoded afterwards, so
that the client's own work distorts as little as possible. Called by commands.py. Needs aiohttp, nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from workers.calibrate.experiment import Call, Experiment, Run, Timing
from workers.calibrate.prompts import text_of, token_ids
from workers.calibrate.server_facts import ServerFacts, read_facts

CALL_TIMEOUT_S = 300.0
FLUSH_WAIT_S = 30.0


class ServerProblem(Exception):
    """The server cannot be measured: it does not answer, or not as an SGLang server does."""


class HttpRunner:
    """One server. Use as an async context manager."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpRunner:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0),  # uvicorn closes after 5 s
            timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S),
            headers=self._headers,
            read_bufsize=2**20,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def facts(self, hardware: str | None = None) -> ServerFacts:
        """Raises ServerProblem."""
        info = await self._get_json("/server_info")
        loads = await self._get_json("/v1/loads")
        try:
            return read_facts(info, loads, hardware)
        except (KeyError, ValueError, TypeError) as error:
            raise ServerProblem(f"{self._url}/server_info does not describe an SGLang server: {error!r}") from error

    async def run(self, experiment: Experiment) -> Run:
        """Raises ServerProblem when the cache cannot be flushed; what happens to calls is in their timings."""
        if experiment.flush:
            await self._flush()
        bodies = [_body(call) for call in experiment.calls]
        firsts = [asyncio.Event() for _ in bodies]
        ends = [asyncio.Event() for _ in bodies]
        gc.collect()
        gc.disable()
        try:
            started_s = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._call(call, body, started_s, firsts, ends, index))
                    for index, (call, body) in enumerate(zip(experiment.calls, bodies, strict=True))
                ]
        finally:
            gc.enable()
        return Run(experiment=experiment, timings=tuple(task.result().timing() for task in tasks))

    async def _call(
        self,
        call: Call,
        body: bytes,
        started_s: float,
        firsts: Sequence[asyncio.Event],
        ends: Sequence[asyncio.Event],
        index: int,
    ) -> _Stream:
        for other in call.after:
            await (firsts if call.after_first else ends)[other].wait()
        since_s = 0.0 if call.after else time.perf_counter() - started_s
        await asyncio.sleep(max(0.0, call.delay_s - since_s))
        stream = _Stream(time.perf_counter() - started_s)
        assert self._session is not None
        try:
            async with self._session.post(
                f"{self._url}/generate", data=body, headers={"content-type": "application/json"}
            ) as response:
                stream.status = response.status
                async for piece in response.content.iter_any():
                    stream.pieces.append((time.perf_counter() - started_s, piece))
                    firsts[index].set()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            stream.error = f"{type(error).__name__}: {error}"
        finally:
            firsts[index].set()
            ends[index].set()
        return stream

    async def _flush(self) -> None:
        assert self._session is not None
        deadline_s = time.monotonic() + FLUSH_WAIT_S
        while True:
            try:
                async with self._session.post(f"{self._url}/flush_cache") as response:
                    if response.status == 200:
                        return
                    text = await response.text()
            except aiohttp.ServerDisconnectedError as error:  # a kept connection that the server was closing
                if time.monotonic() > deadline_s:
                    raise ServerProblem(f"{self._url}/flush_cache: {error}") from error
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ServerProblem(f"{self._url}/flush_cache: {error}") from error
            if response.status != 400 or time.monotonic() > deadline_s:  # 400: requests run or wait
                raise ServerProblem(f"{self._url}/flush_cache: {response.status} {text[:200]}; is the server in use?")
            await asyncio.sleep(0.1)

    async def _get_json(self, path: str) -> Mapping[str, Any]:
        assert self._session is not None
        try:
            async with self._session.get(self._url + path) as response:
                if response.status != 200:
                    raise ServerProblem(f"{self._url}{path} answered {response.status}")
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ServerProblem(f"{self._url}{path}: {error}") from error
        if not isinstance(answer, dict):
            raise ServerProblem(f"{self._url}{path} did not answer a JSON object")
        return answer


class _Stream:
    """What came back on one call, not yet decoded."""

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.status = 0
        self.pieces: list[tuple[float, bytes]] = []
        self.error: str | None = None

    def timing(self) -> Timing:
        """Decodes the events. A piece's time is that of every event that ends in it."""
        if self.error is None and self.status != 200:
            self.error = f"HTTP {self.status}: {b''.join(piece for _, piece in self.pieces)[:300]!r}"
        token_s: list[float] = []
        counts: list[int] = []
        meta: Mapping[str, Any] = {}
        rest = b""
        for at_s, piece in self.pieces if self.error is None else ():
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                answer = _decoded(event)
                if answer is None:
                    continue
                if "error" in answer:
                    self.error = str(answer["error"])[:300]
                    break
                meta = answer["meta_info"]
                made = int(meta["completion_tokens"])
                if made > (counts[-1] if counts else 0):
                    token_s.append(at_s)
                    counts.append(made)
        if self.error is None and not counts:
            self.error = "the stream held no token"
        return Timing(
            sent_s=self.sent_s,
            token_s=tuple(token_s),
            token_counts=tuple(counts),
            prompt_tokens=int(meta.get("prompt_tokens", 0)),
            cached_tokens=int(meta.get("cached_tokens", 0)),
            error=self.error,
            meta={key: value for key, value in meta.items() if isinstance(value, float)},
        )


def _decoded(event: bytes) -> dict[str, Any] | None:
    data = event.removeprefix(b"data: ").strip()
    if not data or data == b"[DONE]" or not event.startswith(b"data: "):
        return None
    answer = json.loads(data)
    return answer if isinstance(answer, dict) else None


def _body(call: Call) -> bytes:
    prompt: dict[str, Any] = (
        {"text": text_of(call.prompt)} if call.text else {"input_ids": token_ids(call.prompt).tolist()}
    )
    sampling = {"max_new_tokens": call.output_tokens, "ignore_eos": True, "temperature": 0}
    return json.dumps({**prompt, "sampling_params": sampling, "stream": True}).encode()
