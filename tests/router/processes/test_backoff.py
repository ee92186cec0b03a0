"""The pause before a process is started again: longer each time, short again after it lived well."""

from __future__ import annotations

from router.processes.backoff import FIRST_S, MOST_S, WELL_S, Backoff


def test_the_pause_doubles_up_to_a_bound() -> None:
    backoff = Backoff()
    pauses = [backoff.wait_s(1.0) for _ in range(12)]

    assert pauses[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert max(pauses) == pauses[-1] == MOST_S


def test_a_process_that_lived_well_is_started_again_as_soon_as_the_first_time() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.wait_s(1.0)

    assert backoff.wait_s(WELL_S) == FIRST_S
