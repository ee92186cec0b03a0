"""Sets up logging for the command line. Libraries and tests never call it.

One line per event on standard error. No request bodies, no headers, no prompts: see the callers.
"""

from __future__ import annotations

import logging


def setup_logging(level: str) -> None:
    """Log from `level` (debug, info, warning, error) on. Side effect: configures the root logger."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S", force=True
    )
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
