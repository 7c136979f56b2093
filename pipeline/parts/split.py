"""Which rows of train the parts are fitted on, and which points the scorer.

train:       | inner rows ...................... | later rows .. |   validation   |   test
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.data.histories import Log, Points, Prepared
from pipeline.models.baselines import train_rows

LATER_SHARE = 0.2  # of train's rows, the newest: the scorer's
POINTS_PER_USER = 100  # of the scorer's sample
MOST_SCORER_POINTS = 12_000
MOST_VALIDATION_POINTS = 1_500


@dataclass(frozen=True)
class Split:
    inner: np.ndarray  # (rows of the log,) bool
    full: np.ndarray
    later: Points  # what the scorer is fitted on
    validation: Points


def split(prepared: Prepared, seed: int) -> Split:
    """Inner and later rows of train, by time; equal timestamps stay together (in the later part)."""
    data = prepared.log
    full = train_rows(data)
    inner, newer = older_and_newer(data, full)
    generator = np.random.default_rng([seed, 1])
    later = at_most(newer, POINTS_PER_USER, MOST_SCORER_POINTS, generator)
    validation = at_most(prepared.validation, len(data), MOST_VALIDATION_POINTS, generator)
    return Split(inner, full, later, validation)


def older_and_newer(data: Log, rows: np.ndarray) -> tuple[np.ndarray, Points]:
    """(mask of the older rows, points of the newest LATER_SHARE); equal timestamps stay together."""
    times = np.sort(data.time[rows])
    cut = times[int(len(times) * (1 - LATER_SHARE))] if len(times) else 0
    return rows & (data.time < cut), data.successes(rows & (data.time >= cut))


def at_most(points: Points, per_user: int, total: int, generator: np.random.Generator) -> Points:
    """A random choice, at most `per_user` of a user and `total` in all, in the given order."""
    shuffled = generator.permutation(len(points))
    user = points.user[shuffled]
    order = np.argsort(user, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(user[order]) != 0]) if len(user) else np.zeros(0, np.int64)
    place = np.arange(len(user)) - np.repeat(start, np.diff(np.r_[start, len(user)]))
    kept = generator.permutation(shuffled[order[place < per_user]])[:total]
    return points[np.sort(kept)]
