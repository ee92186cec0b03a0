"""/metrics: SGLang's names, and numbers that add up."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from workers.simulated.metrics import Histogram

LONG = "a prompt that is long enough to be found again in the prefix cache of this worker; " * 4


async def scrape(worker: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = await worker.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Any, name: str, **labels: str) -> float:
    (found,) = [
        number for (known, given), number in samples.items() if known == name and set(labels.items()) <= set(given)
    ]
    return float(found)


async def test_names_are_the_real_servers(worker: Any) -> None:
    names = {name for name, _ in await scrape(worker)}
    assert names >= {
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:token_usage",
        "sglang:cache_hit_rate",
        "sglang:gen_throughput",
        "sglang:num_used_tokens",
        "sglang:max_total_num_tokens",
        "sglang:cached_tokens_total",
        "sglang:prompt_tokens_total",
        "sglang:generation_tokens_total",
        "sglang:num_requests_total",
        "sglang:num_aborted_requests_total",
        "sglang:time_to_first_token_seconds_bucket",
        "sglang:inter_token_latency_seconds_count",
        "sglang:e2e_request_latency_seconds_sum",
        "sglang:queue_time_seconds_count",
        "sglang:uncached_prompt_tokens_histogram_count",
    }


async def test_counters_count_what_the_answers_reported(worker: Any) -> None:
    usages = [(await worker.chat(LONG, max_tokens=5)).json()["usage"] for _ in range(3)]
    samples = await scrape(worker)
    prompt = sum(usage["prompt_tokens"] for usage in usages)
    cached = sum((usage["prompt_tokens_details"] or {"cached_tokens": 0})["cached_tokens"] for usage in usages)
    assert value(samples, "sglang:prompt_tokens_total") == prompt
    assert value(samples, "sglang:generation_tokens_total") == 15
    assert value(samples, "sglang:cached_tokens_total", cache_source="device") == cached > 0
    assert value(samples, "sglang:num_requests_total") == 3
    assert value(samples, "sglang:time_to_first_token_seconds_count") == 3
    assert value(samples, "sglang:inter_token_latency_seconds_count") == 12
    assert value(samples, "sglang:e2e_request_latency_seconds_count") == 3
    assert value(samples, "sglang:uncached_prompt_tokens_histogram_sum") == prompt - cached


async def test_every_rank_has_its_own_label_and_names_with_quotes_are_escaped(start_worker: Any) -> None:
    async with start_worker(dp_size=2, model='a"b\\c') as worker:
        samples = await scrape(worker)
        assert value(samples, "sglang:num_running_reqs", dp_rank="1", model_name='a"b\\c') == 0


async def test_there_are_no_metrics_when_they_are_switched_off(start_worker: Any) -> None:
    async with start_worker(metrics=False) as worker:
        assert (await worker.get("/metrics")).status_code == 404


def test_a_histogram_puts_a_value_on_a_bound_into_that_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 5.0):
        histogram.observe(number)
    histogram.observe(2.0, times=3)
    assert histogram.counts == [2, 4, 1]
    assert (histogram.count, histogram.sum) == (7, 14.0)
