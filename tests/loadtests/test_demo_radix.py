"""`trieway demo radix` on real processes: what is cached is quick, what is spread is computed again, and it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.demo_radix import Asked, Lost, Round, lost_by_round_robin
from loadtests.demo_radix_command import milliseconds, summary
from loadtests.demo_radix_plot import draw


def asked(number: int, ttft_s: float, cached_tokens: int) -> Asked:
    return Asked(number=number, worker="w1", ttft_s=ttft_s, prompt_tokens=1000, cached_tokens=cached_tokens,
                 speed_up=1.0)  # fmt: skip


def one_round(name: str, *cached: int) -> Round:
    """A miss takes a second, a hit a tenth."""
    return Round(name=name, asked=tuple(asked(i, 0.1 if c else 1.0, c) for i, c in enumerate(cached, 1)))


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "loadtests", "demo", "radix", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What a whole demo on two simulated workers found, and its picture."""
    picture = tmp_path_factory.mktemp("radix") / "radix.svg"
    done = demo("--workers", "2", "--questions", "4", "--document-tokens", "2000", "--json", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), picture


def test_one_worker_computes_the_document_once_and_round_robin_once_per_worker(shown: Any) -> None:
    one, in_turn, chosen = [[each["cached_tokens"] > 1900 for each in one["asked"]] for one in shown[0]["rounds"]]

    assert one == [False, True, True, True]
    assert in_turn == [False, False, True, True]
    assert chosen == [False, True, True, True]


def test_the_router_keeps_to_the_worker_that_has_the_document(shown: Any) -> None:
    _, in_turn, chosen = [[each["worker"] for each in one["asked"]] for one in shown[0]["rounds"]]

    assert len(set(in_turn)) == 2
    assert len(set(chosen)) == 1


def test_round_robin_lost_one_document(shown: Any) -> None:
    lost = shown[0]["lost_by_round_robin"]

    assert lost["measured"]
    assert lost["computed_tokens"] == pytest.approx(2000, abs=100)


def test_the_picture_names_every_round(shown: Any) -> None:
    assert shown[1].stat().st_size > 5_000
    assert shown[1].read_text().startswith("<?xml")


def test_a_round_with_more_questions_than_fit_is_still_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "many.png", [one_round("endpoint", 0, *[900] * 40)], 1000)

    assert (tmp_path / "many.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_round_robin_round_its_loss_is_worked_out_from_misses_on_the_other_workers() -> None:
    lost = lost_by_round_robin([one_round("endpoint", 0, 900, 900, 900, 900)], workers=4)

    assert lost == Lost(ttft_s=pytest.approx(3 * 0.9), computed_tokens=3 * 900, measured=False)


def test_with_fewer_questions_than_workers_only_those_asked_are_lost() -> None:
    assert lost_by_round_robin([one_round("endpoint", 0, 900)], workers=4).computed_tokens == 900


def test_one_worker_loses_nothing() -> None:
    assert lost_by_round_robin([one_round("endpoint", 0, 900)], workers=1).computed_tokens == 0


def test_the_summary_compares_the_first_question_with_the_later_ones() -> None:
    rounds = [one_round("one worker", 0, 900), one_round("round_robin", 0, 0), one_round("prefix_match", 0, 900)]
    text = "\n".join(summary(rounds, lost_by_round_robin(rounds, 2), 2))

    assert "the first question waited 1,000.0 ms, later ones 100.0 ms (10.0 times quicker)" in text
    assert "Round robin over 2 workers took 900.0 ms longer for 2 questions and computed 900 tokens more" in text


def test_a_server_that_reports_no_cached_tokens_is_told_so() -> None:
    rounds = [one_round("endpoint", 0, 0)]

    assert "--enable-cache-report" in "\n".join(summary(rounds, lost_by_round_robin(rounds, 2), 2))


def test_questions_that_all_miss_are_said_to_have_missed() -> None:
    """A few tokens of the chat template are always found."""
    rounds = [one_round("endpoint", 0, 7, 7)]

    assert "none came to a worker that had it" in "\n".join(summary(rounds, lost_by_round_robin(rounds, 2), 2))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--endpoint", "http://127.0.0.1:9"), "nothing answers at http://127.0.0.1:9"),
        (("--worker", "http://127.0.0.1:9"), "nothing answers at http://127.0.0.1:9"),
        (("--endpoint", "http://a", "--worker", "http://b"), "--endpoint goes without --worker"),
        (("--plot", "radix.gif"), "ends with none of .png, .svg, .pdf"),
        (("--questions", "1"), "--questions"),
    ],
)
def test_bad_input_is_one_clear_error(options: tuple[str, ...], why: str) -> None:
    done = demo(*options)

    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_times_are_shown_in_the_unit_that_fits() -> None:
    assert (milliseconds(0.0123), milliseconds(-0.5), milliseconds(12.34)) == ("12.3 ms", "-500.0 ms", "12.3 s")
