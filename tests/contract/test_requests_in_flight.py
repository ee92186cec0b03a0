"""Running requests as others see them: loads, aborting by id and all at once, hanging up, flushing meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHAT = "/v1/chat/completions"
LONG = 1500  # tokens: seconds on either server
FreshIds = Callable[[int], list[int]]


def generating(ids: list[int], **fields: Any) -> dict[str, Any]:
    return {"input_ids": ids, "sampling_params": {"max_new_tokens": LONG, "ignore_eos": True}, **fields}


@contextmanager
def running(worker: Any, body: dict[str, Any], path: str = "/generate") -> Iterator[Iterator[Any]]:
    """A stream whose first event has come; hangs up at the end."""
    with worker.open_stream(path, body) as stream:
        next(stream)
        yield stream


@pytest.fixture(autouse=True)
def idle_before_and_after(worker: Any, until: Any) -> Iterator[None]:
    until(worker.idle)
    yield
    worker.post("/abort_request", {"abort_all": True})
    until(worker.idle)


def test_a_running_request_shows_in_loads_until_its_client_hangs_up(
    worker: Any, fresh_ids: FreshIds, until: Any
) -> None:
    with running(worker, generating(fresh_ids(100))):
        until(lambda: worker.loads()["num_running_reqs"] == 1)
        load = worker.loads()
        assert load["num_used_tokens"] >= 100
        assert load["num_total_tokens"] >= 100
        assert 0 < load["token_usage"] < 1
    until(worker.idle)


def test_a_request_that_does_not_fit_waits_and_is_counted(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    with running(worker, generating(fresh_ids(6000), rid="first")) as first:
        with worker.open_stream("/generate", generating(fresh_ids(6000))) as second:
            until(lambda: worker.loads()["num_waiting_reqs"] == 1)
            load = worker.loads()
            assert load["num_running_reqs"] == 1
            assert 0 < load["num_waiting_uncached_tokens"] <= 6000
            assert load["queues"]["waiting"] == 1
            worker.post("/abort_request", {"rid": "first"})
            for _ in first:
                pass
            assert next(second)["meta_info"]["completion_tokens"] == 1
    until(worker.idle)


def test_aborting_by_id_ends_a_stream_of_generate_with_its_reason(worker: Any, fresh_ids: FreshIds) -> None:
    with running(worker, generating(fresh_ids(10), rid="contract-abort-1")) as stream:
        aborted = worker.post("/abort_request", {"rid": "contract-abort-1"})
        *_, last, done = stream

    assert (aborted.status_code, aborted.content) == (200, b"")
    assert last["meta_info"]["finish_reason"] == {
        "type": "abort",
        "message": "Aborted",
        "status_code": None,
        "err_type": None,
    }
    assert last["meta_info"]["completion_tokens"] < LONG
    assert done == "[DONE]"


def test_aborting_ends_a_chat_stream_with_its_reason_and_its_usage(
    worker: Any, fresh_text: Callable[[int], str]
) -> None:
    body = {
        "model": "contract",
        "messages": [{"role": "user", "content": fresh_text(3)}],
        "max_tokens": LONG,
        "ignore_eos": True,
        "rid": "contract-abort-2",
        "stream_options": {"include_usage": True},
    }
    with running(worker, body, CHAT) as stream:
        worker.post("/abort_request", {"rid": "contract-abort-2"})
        *_, last, usage, done = stream

    assert last["choices"][0]["finish_reason"] == "abort"
    assert last["choices"][0]["delta"] == {"reasoning_content": None}
    assert usage["usage"]["completion_tokens"] < LONG
    assert done == "[DONE]"


def test_aborting_all_ends_every_request(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    with running(worker, generating(fresh_ids(10))) as first, running(worker, generating(fresh_ids(10))) as second:
        worker.post("/abort_request", {"abort_all": True})
        reasons = [list(stream)[-2]["meta_info"]["finish_reason"]["type"] for stream in (first, second)]

    assert reasons == ["abort", "abort"]
    until(worker.idle)


def test_what_an_aborted_request_had_computed_stays_cached(worker: Any, fresh_ids: FreshIds, until: Any) -> None:
    ids = fresh_ids(160)
    with running(worker, generating(ids)):
        pass
    until(worker.idle)

    assert worker.generate([*ids, 7])["meta_info"]["cached_tokens"] == 160


@pytest.mark.parametrize("body", [{"rid": "nobody"}, {}, {"abort_all": True}], ids=str)
def test_aborting_what_is_not_there_is_an_empty_200(worker: Any, body: dict[str, Any]) -> None:
    answer = worker.post("/abort_request", body)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_flush_is_refused_while_a_request_runs_unless_it_may_wait(worker: Any, fresh_ids: FreshIds) -> None:
    with running(worker, generating(fresh_ids(10))):
        refused = worker.client.post("/flush_cache")
        assert refused.status_code == 400
        assert refused.text
    waited = worker.client.post("/flush_cache?timeout=30.0")

    assert waited.status_code == 200
    assert waited.text.startswith("Cache flushed.\n")


def test_health_is_answered_while_a_request_runs(worker: Any, fresh_ids: FreshIds) -> None:
    with running(worker, generating(fresh_ids(10))):
        assert worker.get("/health_generate").status_code == 200
