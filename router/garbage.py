"""The garbage collector of a router: what lives long is left out of its rounds. Called by cli before serving.

Requests leave next to no cycles behind, while the index holds millions of objects that every full round would walk
through: hundreds of milliseconds in which nothing is answered.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 50_000, 20, 100
"""Objects made, net of those gone, until a round of the youngest; rounds until one of the middle; of all."""


def calm() -> None:
    """Set what is there aside, and look for cycles rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
