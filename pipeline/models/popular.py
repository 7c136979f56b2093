"""The baselines of what is popular: how often everybody took an item lately, up to each point.

`popularity` counts every success alike (an infinite half-life), `recent_popularity` lets it fade; both count
live, as a running service would (pipeline/models/state.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.data.histories import MICROSECONDS_A_DAY, Log, Points
from pipeline.models.state import Live


@dataclass(frozen=True)
class LivePopularity:
    """Score of an item: log2 of the sum over its successes before the point of 2^(-age / half-life)."""

    name: str
    live: Live  # with the one half-life

    @classmethod
    def of(
        cls, name: str, log: Log, items: int, half_life_days: float, delay_seconds: float = 0.0
    ) -> LivePopularity:
        return cls(name, Live.of(log, items, (half_life_days,), delay_seconds))

    @cached_property
    def _heights(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.live.heights(0)

    def score(self, points: Points) -> np.ndarray:
        """(points, items) float32; NaN: not taken yet."""
        times, item, height = self._heights
        moment = self.live.moment(points.time)
        stop = np.searchsorted(times, moment, side="left")
        age = (moment - times[0]) / MICROSECONDS_A_DAY / self.live.half_lives[0] if len(times) else stop
        now, done = np.full(self.live.items, np.nan), 0
        scores = np.empty((len(points), self.live.items), np.float32)
        for point in np.argsort(stop, kind="stable"):  # later points know what earlier ones do, and more
            now[item[done : stop[point]]] = height[done : stop[point]]  # an item's last assignment stays
            done = stop[point]
            scores[point] = now - age[point]
        return scores
