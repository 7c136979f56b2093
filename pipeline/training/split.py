"""Which rows of train the parts are fitted on, and which points the scorer.

train:       | inner rows ...................... | later rows .. |   validation   |   test

Where the later rows hold few successes, or those of few people, earlier cuts give more: parts fitted on the
rows before a cut, points between it and the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.data.histories import Log, Points, Prepared
from pipeline.models.baselines import train_rows

CUTS = (0.8, 0.65, 0.5, 0.35)  # shares of train's rows that lie before a cut; the first is always made
# From which on no further cut is made: points of the scorer, and people whose points they are. Those of a few
# people are much alike, however many (docs/log.md, 2026-11-29).
ENOUGH_POINTS, ENOUGH_PEOPLE = 4_000, 150
POINTS_PER_USER = 100  # of the scorer's sample
MOST_SCORER_POINTS = 12_000
MOST_VALIDATION_POINTS = 1_500


@dataclass(frozen=True)
class Cut:
    inner: np.ndarray  # (rows of the log,) bool, before the cut
    later: Points  # between it and the next: what the scorer is fitted on


@dataclass(frozen=True)
class Split:
    cuts: list[Cut]  # oldest first, at least one
    full: np.ndarray  # (rows of the log,) bool, all of train
    validation: Points

    @property
    def inner(self) -> np.ndarray:
        """(rows of the log,) bool, before every point of the scorer."""
        return self.cuts[0].inner

    @property
    def scorer_points(self) -> int:
        return sum(len(cut.later) for cut in self.cuts)


def split(prepared: Prepared, seed: int) -> Split:
    """Cuts of train, and validation's points."""
    data, full = prepared.log, train_rows(prepared.log)
    generator = np.random.default_rng([seed, 1])
    cuts = cuts_of(data, full, ENOUGH_POINTS, POINTS_PER_USER, MOST_SCORER_POINTS, generator)
    return Split(cuts, full, validation_sample(prepared, seed))


def cuts_of(
    data: Log, rows: np.ndarray, enough: int, per_user: int, most: int, generator: np.random.Generator
) -> list[Cut]:
    """Cuts of the rows of a mask by time, oldest first; equal timestamps stay together (behind the cut).

    Of the points behind each a random choice, at most `per_user` of a user and `most` in all; with `enough`
    points, of ENOUGH_PEOPLE, no further cut is made.
    """
    cuts: list[Cut] = []
    until, people = np.iinfo(np.int64).max, np.zeros(0, np.int32)
    for share in CUTS:
        inner, newer, moment = _cut(data, rows, share, until)
        if cuts and not inner.any():
            break
        later = at_most(data.successes(newer), per_user, most, generator)
        cuts.insert(0, Cut(inner, later))
        until, people = moment, np.union1d(people, later.user)
        if sum(len(cut.later) for cut in cuts) >= enough and len(people) >= ENOUGH_PEOPLE:
            break
    return cuts


def validation_sample(prepared: Prepared, seed: int) -> Points:
    """The same points whatever the cuts: their figures can be compared."""
    own = np.random.default_rng([seed, 3])
    return at_most(prepared.validation, len(prepared.log), MOST_VALIDATION_POINTS, own)


def _cut(data: Log, rows: np.ndarray, share: float, until: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(mask of the rows before the cut, mask of those from it to `until`, its moment in microseconds)."""
    times = np.sort(data.time[rows])
    moment = int(times[int(len(times) * share)]) if len(times) else 0
    return rows & (data.time < moment), rows & (data.time >= moment) & (data.time < until), moment


def at_most(points: Points, per_user: int, total: int, generator: np.random.Generator) -> Points:
    """A random choice, at most `per_user` of a user and `total` in all, in the given order."""
    shuffled = generator.permutation(len(points))
    user = points.user[shuffled]
    order = np.argsort(user, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(user[order]) != 0]) if len(user) else np.zeros(0, np.int64)
    place = np.arange(len(user)) - np.repeat(start, np.diff(np.r_[start, len(user)]))
    kept = generator.permutation(shuffled[order[place < per_user]])[:total]
    return points[np.sort(kept)]
