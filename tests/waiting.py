"""Waiting for what a process does: patiently, since a slow or busy machine says nothing of the code."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 1500


def until(look: Callable[[], Any], explain: Callable[[], Any] = str) -> Any:
    """The first of look()'s answers that is true; asked twice a second, or more often at first."""
    started, pause = time.monotonic(), 0.02
    while not (found := look()):
        assert time.monotonic() - started < PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS} s: {explain()}"
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)
    return found


def slowness() -> float:
    """How many times as long as on the machine that limits of CPU seconds were set on; at least 1.

    There the loop would take some .06 s: it takes .35 where the default tests take 5.5 times as long.
    """
    start, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return max(1.0, (time.process_time() - start) / 0.06)
