"""Settings of all tests. Hypothesis has no deadline: test machines are busy, and pytest-timeout bounds each test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("trieway", deadline=None)
settings.load_profile("trieway")
