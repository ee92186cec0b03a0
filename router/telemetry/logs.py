"""Sets up logging for the command line: one line per event on standard error, for people or as JSON for machines.

Libraries and tests never call it. No request bodies, no headers, no prompts: see the callers.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec

_encode = msgspec.json.Encoder().encode


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, and error where there is one. `process` is
    the number of this one, where there are several."""

    def __init__(self, process: int | None = None) -> None:
        super().__init__()
        self._process = {} if process is None else {"process": process}

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return _encode(event).decode()


def setup_logging(level: str, log_format: str = "text", process: int | None = None) -> None:
    """Log from `level` (debug, info, warning, error) on, as `text` or `json`. Configures the root logger."""
    handler = logging.StreamHandler()
    who = "" if process is None else f"[{process}] "
    text = logging.Formatter(f"%(asctime)s {who}%(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
