"""Settings of all tests. Hypothesis has no deadline: test machines are busy, and pytest-timeout bounds each test."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("trieway", deadline=None, database=None)
settings.load_profile("trieway")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts this in the background has Ctrl-C ignored, here and in all programs that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
