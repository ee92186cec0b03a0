"""Logs: one line per event, readable by machines where asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from router.telemetry.logs import JsonFormatter, setup_logging


@pytest.fixture
def restored() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_has_one_object_a_line_even_with_line_breaks_and_a_traceback() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord("router.x", logging.ERROR, "f", 1, "a %s\nb", ("thing",), (ValueError, error, None))
    line = JsonFormatter().format(record)

    event = json.loads(line)
    assert "\n" not in line
    assert (event["level"], event["logger"], event["message"]) == ("error", "router.x", "a thing\nb")
    assert "ValueError: two" in event["error"]
    assert event["time"].endswith("+00:00")


@pytest.mark.parametrize(("log_format", "begins"), [("json", "{"), ("text", "")])
def test_the_chosen_format_and_level_are_used(
    log_format: str, begins: str, restored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging("warning", log_format)
    logging.getLogger("router.x").info("not shown")
    logging.getLogger("router.x").warning("shown")

    (line,) = capsys.readouterr().err.splitlines()
    assert "shown" in line
    assert line.startswith(begins)
