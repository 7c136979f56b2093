"""The world of a simulation: its users, its catalogue and the log that both loops begin with.

In: prepared data. Out: `World`. Rule: users keep their own activity, tastes and appeal come from all rows
(choice.py); some items are kept back from the starting log and enter round by round: users know them, models
do not. A round is so much time and so many rows as call for a training (`Behaviour.round_share`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.data.histories import TRAIN, Catalogue, Log, Prepared
from pipeline.errors import DataError
from pipeline.models.ranking import popularity_order
from pipeline.simulation.choice import Choice, Observed, Tastes, fit, matrix_of

MOST_USERS = 750  # who act; the others' rows stand still
MOST_CELLS = 20_000_000  # users x items
FEWEST_USERS, LEAST_ROWS = 20, 5


@dataclass(frozen=True)
class Behaviour:
    """What the data do not tell, and is assumed."""

    adoption: float = 0.5
    """Share of the choices that are made from the list, as far as it reaches."""
    examination: float = 1.0
    """A place is looked at in proportion to rank^-examination (Richardson et al. 2007)."""
    drift: float = 0.05
    """Share of the way that a taste moves in a round towards what was taken in it."""
    memory: float = 0.3
    """Weight of a round's choices in the running mean that is satisfaction."""
    churn: float = 0.02
    """Hazard a round of leaving for good, at satisfaction 0."""
    sensitivity: float = 1.0
    """The hazard is churn x exp(-sensitivity x satisfaction)."""
    round_share: float = 0.1
    """Rows and time of a round, as a share of the data's."""
    new_share: float = 0.1
    """Of the items: kept back from the starting log, they enter over the first half of the rounds."""


@dataclass(frozen=True)
class World:
    behaviour: Behaviour
    catalogue: Catalogue  # new items are available from the round in which they enter
    log: Log  # that both loops begin with
    users: np.ndarray  # (n,) int32 of the log, who act
    tastes: Tastes
    choice: Choice
    appeal: np.ndarray  # (items,) float32
    rate: np.ndarray  # (n,) successes a round
    value: float  # of a simulated row: a success' median one
    enters: np.ndarray  # (items,) round in which an item is new; 0: it was there
    order: np.ndarray  # (items,) place by popularity at the start
    start: int  # microseconds
    length: int  # of a round
    rounds: int  # retrainings; there is one round more
    k: int

    def moment(self, number: int) -> int:
        return self.start + number * self.length

    def available(self, number: int) -> np.ndarray:
        """(items,) bool."""
        now = self.moment(number)
        return (self.catalogue.available_from <= now) & (now < self.catalogue.available_until)


def people(log: Log, items: int, seed: int) -> np.ndarray:
    """(n,) int32, ascending: who act, of those with LEAST_ROWS and more. Raises DataError for too few."""
    able = np.flatnonzero(np.diff(log.indptr) >= LEAST_ROWS)
    if len(able) < FEWEST_USERS or not log.positive.any():
        raise DataError(
            f"data/prepared: {len(able)} users with {LEAST_ROWS} rows and more: a simulation needs "
            f"{FEWEST_USERS}: collect more, or lower preprocess.positive.min_value"
        )
    most = min(MOST_USERS, max(MOST_CELLS // max(items, 1), FEWEST_USERS))
    drawn = np.random.default_rng([seed, 1]).permutation(able)[:most]
    return np.sort(drawn).astype(np.int32)


def build(prepared: Prepared, rounds: int, k: int, seed: int, behaviour: Behaviour | None = None) -> World:
    behaviour = behaviour or Behaviour()
    log, items = prepared.log, len(prepared.catalogue)
    users = people(log, items, seed)
    seen, every = Observed.of(log, users, items), np.ones(len(log), bool)
    past = Tastes.of(log, seen.older, users, seen.met, seed)
    choice = fit(past.scores(past.users), seen, np.arange(len(users)), past.items, log.repeats, seed)
    tastes = Tastes.of(log, every, users, matrix_of(log, every, items, users), seed)
    count = np.bincount(log.item[log.positive], minlength=items)
    enters = _entering(count, rounds, behaviour.new_share, seed)
    start = prepared.now
    length = max(int(behaviour.round_share * (start - int(log.time.min()))), 1)
    catalogue = replace(
        prepared.catalogue,
        available_from=np.where(
            enters > 0,
            np.maximum(prepared.catalogue.available_from, start + enters * length),
            np.minimum(prepared.catalogue.available_from, start),
        ),
        # What is withdrawn one day stays: the data do not tell what would come after it.
        available_until=np.full(items, np.iinfo(np.int64).max),
    )
    first = replace(
        part(log, enters[log.item] == 0), window=np.full(int((enters[log.item] == 0).sum()), TRAIN, np.int8)
    )
    positive = np.bincount(log.user[log.positive], minlength=len(log.indptr) - 1)[users]
    liked = log.value[log.positive]
    return World(
        behaviour,
        catalogue,
        first,
        users,
        tastes,
        choice,
        choice.appeal(count),
        behaviour.round_share * positive,
        float(np.nanmedian(liked)) if not np.isnan(liked).all() else np.nan,
        enters,
        popularity_order(np.bincount(first.item, minlength=items), catalogue.ids),
        start,
        length,
        rounds,
        k,
    )


def _entering(count: np.ndarray, rounds: int, share: float, seed: int) -> np.ndarray:
    """(items,) the round in which each enters: a share of those that were ever taken, drawn by chance."""
    enters = np.zeros(len(count), np.int64)
    taken = np.flatnonzero(count)
    new = np.random.default_rng([seed, 2]).permutation(taken)[: int(share * len(taken))]
    enters[new] = 1 + np.arange(len(new)) % max(rounds // 2, 1)
    return enters


def part(log: Log, rows: np.ndarray) -> Log:
    """Some rows of a log (mask), of the same users."""
    counts = np.bincount(log.user[rows], minlength=len(log.indptr) - 1)
    fields = ("user", "item", "time", "value", "positive", "fit", "window", "text", "liked")
    kept: dict[str, Any] = {
        name: None if getattr(log, name) is None else getattr(log, name)[rows] for name in fields
    }
    return replace(log, **kept, indptr=np.r_[0, np.cumsum(counts)].astype(np.int64))


def with_rows(log: Log, user: np.ndarray, item: np.ndarray, time: np.ndarray, value: float) -> Log:
    """The log with further successes, without what anybody wrote."""
    every = np.r_[log.user, user.astype(np.int32)]
    moment = np.r_[log.time, time]
    order = np.lexsort((moment, every))  # stable: ties stay in the files' order
    more, yes = len(user), np.ones(len(user), bool)
    counts = np.bincount(every, minlength=len(log.indptr) - 1)
    return Log(
        user=every[order],
        item=np.r_[log.item, item.astype(np.int32)][order],
        time=moment[order],
        value=np.r_[log.value, np.full(more, value, np.float32)][order],
        positive=np.r_[log.positive, yes][order],
        fit=np.r_[log.fit, yes][order],
        window=np.r_[log.window, np.full(more, TRAIN, np.int8)][order],
        indptr=np.r_[0, np.cumsum(counts)].astype(np.int64),
        repeats=log.repeats,
    )
