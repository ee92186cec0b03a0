"""Measuring a server over HTTP: a running simulated one, and servers that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from workers.calibrate.experiment import Call, Experiment
from workers.calibrate.http_runner import HttpRunner, ServerProblem
from workers.calibrate.measuring import run_all
from workers.calibrate.prompts import Segment
from workers.calibrate.schedule import QUICK, schedule
from workers.simulated.cost_model import H200_QWEN3_8B
from workers.simulated.faults import FaultSchedule, parse_faults
from workers.simulated.options import Options
from workers.simulated.server import running

SPEED = 200.0


def experiment(*calls: Call, flush: bool = True) -> Experiment:
    return Experiment(name="x", group="load", calls=calls, flush=flush)


def call(seed: int, tokens: int = 200, output_tokens: int = 3, **given: object) -> Call:
    return Call(prompt=(Segment(seed, tokens),), output_tokens=output_tokens, **given)  # type: ignore[arg-type]


@pytest.fixture
async def runner() -> AsyncIterator[HttpRunner]:
    """Against a simulated worker."""
    async with (
        running(Options(port=0, speed=SPEED, page_size=4, api_key="secret")) as server,
        HttpRunner(f"http://127.0.0.1:{server.port}/", api_key="secret") as http,
    ):
        yield http


async def test_a_server_tells_its_limits(runner: HttpRunner) -> None:
    facts = await runner.facts("1 x H200")
    assert (facts.kv_capacity_tokens, facts.page_size, facts.max_running_requests) == (699_103, 4, 256)
    assert (facts.model, facts.hardware, facts.overlap) == ("simulated", "1 x H200", True)
    assert facts.engine_config().chunked_prefill_tokens == 8192
    assert facts.prefill_sizes == H200_QWEN3_8B.prefill_sizes


async def test_every_token_of_every_call_is_counted_with_its_moment(runner: HttpRunner) -> None:
    run = await runner.run(experiment(call(1), call(1, output_tokens=5, after=(0,)), call(2, text=True)))
    one, again, text = run.timings
    assert [timing.error for timing in run.timings] == [None, None, None]
    assert (one.prompt_tokens, one.cached_tokens, one.token_counts[-1]) == (200, 0, 3)
    assert (again.prompt_tokens, again.cached_tokens, again.token_counts[-1]) == (200, 196, 5)
    assert text.prompt_tokens > 100
    assert one.sent_s < one.token_s[0] <= one.token_s[-1] <= again.sent_s
    assert {"queue_time", "forward_entry_time", "prefill_finished_time"} <= set(one.meta)


async def test_the_cache_is_flushed_where_the_experiment_says_so(runner: HttpRunner) -> None:
    for flush, cached in ((True, 0), (False, 196), (True, 0)):
        run = await runner.run(experiment(call(1), flush=flush))
        assert run.timings[0].cached_tokens == cached


async def test_calls_wait_for_first_tokens_and_delays(runner: HttpRunner) -> None:
    early = call(2, after=(0,), after_first=True, delay_s=0.01)
    run = await runner.run(experiment(call(1, output_tokens=400), early, call(3, delay_s=0.05)))
    first, second, third = run.timings
    assert first.token_s[0] + 0.009 < second.sent_s < first.token_s[-1]
    assert third.sent_s >= 0.049


async def test_a_schedule_runs_and_all_its_calls_succeed(runner: HttpRunner) -> None:
    told: list[str] = []
    experiments = schedule(QUICK, await runner.facts())[:5]
    runs = await run_all(runner, experiments, lambda one: told.append(one.name))
    assert told == [one.name for one in experiments]
    assert not [timing.error for run in runs for timing in run.timings if timing.error]


async def test_a_call_that_is_refused_or_cut_is_an_error_in_its_timing() -> None:
    faults = parse_faults([{"kind": "error", "status": 503, "path": "/generate", "probability": 0.5}])
    assert isinstance(faults, FaultSchedule)
    async with (
        running(Options(port=0, speed=SPEED), faults) as server,
        HttpRunner(f"http://127.0.0.1:{server.port}") as runner,
    ):
        run = await runner.run(experiment(*(call(seed) for seed in range(20))))
        errors = [timing.error for timing in run.timings]
        assert None in errors
        assert any(error is not None and "HTTP 503" in error for error in errors)
        server.injector._faults[:] = parse_faults([{"kind": "reset", "path": "/generate"}]).faults
        cut = (await runner.run(experiment(call(1), flush=False))).timings[0]
        assert cut.error is not None
        too_long = await runner.run(experiment(call(1, tokens=140_000), flush=False))
        assert too_long.timings[0].error is not None


async def test_a_schedule_of_which_nothing_succeeds_stops_with_the_reason() -> None:
    faults = parse_faults([{"kind": "error", "status": 500, "path": "/generate"}])
    async with (
        running(Options(port=0, speed=SPEED), faults) as server,
        HttpRunner(f"http://127.0.0.1:{server.port}") as runner,
    ):
        with pytest.raises(ServerProblem, match="HTTP 500"):
            await run_all(runner, [experiment(call(1))], lambda one: None)


async def test_a_url_where_nothing_or_something_else_answers_is_one_clear_error() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n[]")
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpRunner(f"http://127.0.0.1:{port}") as runner:
        with pytest.raises(ServerProblem, match="/server_info did not answer a JSON object"):
            await runner.facts()
    async with HttpRunner(f"http://127.0.0.1:{port}") as runner:
        with pytest.raises(ServerProblem, match="/server_info"):
            await runner.facts()
        with pytest.raises(ServerProblem, match="/flush_cache"):
            await runner.run(experiment(call(1)))
