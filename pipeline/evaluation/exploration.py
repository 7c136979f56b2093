"""The last places of a list, drawn by chance: what no list shows nobody can learn about.

Each place draws one of the best items that the places above have left, the pool, without putting it back,
with a chance in proportion to its worth (Plackett-Luce). Plainly that is exp(z / 2): z is the item's score in
standard deviations of the pool's. Scores of any scale give chances of one kind: of twenty normal ones the
best has about a ninth, the worst a fiftieth. A learned policy (learned.py) weighs COLUMNS instead. What is
logged is the chance of the item drawn, given what stands above it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

PLACES, POOL = 2, 20
SHARPNESS = 0.5  # flatter costs a list more, steeper gives logs that say little of another model
LEAST_K = 4  # shorter lists are left as they are

SCORE = "score"
# Beside it, features of the item and the moment alone: the same whichever candidates stand beside it.
FEATURES = ("live_count", "live_trend", "live_age")
COLUMNS = (SCORE, *FEATURES)
PLAIN = (SHARPNESS, *(0.0 for _ in FEATURES))  # weights of COLUMNS
MOST = 1.0  # of a weight; plain draws have .5 of the score: steeper ones a log tells too little of
FLOOR = 0.2  # share of the draws of a learned policy that are even, so that a later log can tell of any other

PLAINLY: Final = "champion"  # the model of an impression whose places, if any, were drawn plainly
EXPLORED: Final = "explored:"  # of one that learned weights drew; they follow


@dataclass(frozen=True)
class Draws:
    """What places are drawn by: weights of COLUMNS; without any, plainly."""

    weights: tuple[float, ...] = ()

    @classmethod
    def by(cls, weights: Mapping[str, float | int | None]) -> Draws | None:
        """None where these are not weights of COLUMNS, each from -MOST to MOST."""
        own = [weights.get(name) for name in COLUMNS]
        known = [float(weight) for weight in own if weight is not None and -MOST <= weight <= MOST]
        return cls(tuple(known)) if len(weights) == len(known) == len(COLUMNS) else None

    @classmethod
    def of(cls, model: str) -> Draws | None:
        """Of an impression's model; None where it does not say what drew its places."""
        if model == PLAINLY:
            return cls()
        told = [part.partition("=") for part in model.removeprefix(EXPLORED).split(",")]
        try:
            weights = {name: float(weight) for name, _, weight in told}
        except ValueError:
            return None
        return cls.by(weights) if model.startswith(EXPLORED) else None

    @property
    def model(self) -> str:
        """As an impression names it: so a log says by itself with which chances its places were drawn."""
        if not self.weights:
            return PLAINLY
        named = zip(COLUMNS, self.weights, strict=True)
        return EXPLORED + ",".join(f"{name}={weight!r}" for name, weight in named)

    def worths(self, scores: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
        """(..., pool) float64 worths of scores, -inf for no item. `features`: (..., pool, FEATURES), which
        weights ask for."""
        if not self.weights:
            return worths(scores)
        assert features is not None
        return learned(self.weights, described(scores, features), np.isfinite(scores))


def worths(scores: np.ndarray) -> np.ndarray:
    """(..., pool) float64 exp(z / 2) of scores; 0 for those of -inf, which are no items."""
    there = np.isfinite(scores)
    return np.where(there, np.exp(SHARPNESS * _standard(scores, there)), 0.0)


def described(scores: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(..., pool, columns) COLUMNS in standard deviations of the pool; 0 for what is no item.

    `scores`: (..., pool), -inf for no item; `features`: (..., pool, FEATURES).
    """
    there = np.isfinite(scores)
    columns = [scores, *np.moveaxis(features, -1, 0)]
    return np.stack([_standard(column, there) for column in columns], axis=-1)


def learned(weights: Sequence[float] | np.ndarray, columns: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(..., pool) float64 worths that sum to 1: softmax of the weighted columns, and FLOOR of it even.

    No chance is below FLOOR / pool, neither of the first draw nor of a later one. `there`: which are items.
    """
    loud = np.where(there, columns @ np.asarray(weights, np.float64), -np.inf)
    most = loud.max(axis=-1, keepdims=True, initial=-np.inf)
    worth = np.where(there, np.exp(loud - np.where(np.isfinite(most), most, 0.0)), 0.0)
    total, count = worth.sum(axis=-1, keepdims=True), there.sum(axis=-1, keepdims=True)
    even = there / np.maximum(count, 1)
    return np.asarray((1 - FLOOR) * worth / np.where(total > 0, total, 1.0) + FLOOR * even)


def drawn(worth: np.ndarray, chance: np.random.Generator) -> tuple[list[int], list[float]]:
    """(rows, propensities) of PLACES of the (pool,) worths, at most as many as are above 0."""
    left = np.array(worth, np.float64)
    rows, propensities = [], []
    for _ in range(min(PLACES, int((left > 0).sum()))):
        chances = left / left.sum()
        row = int(chance.choice(len(left), p=chances))
        rows.append(row)
        propensities.append(float(chances[row]))
        left[row] = 0.0
    return rows, propensities


def teaches(user_id: str) -> bool:
    """Whether a user is of the half that a policy is learned from; the other half judges it."""
    return hashlib.sha256(f"evergreen-exploration|{user_id}".encode()).digest()[0] < 128


def _standard(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(..., pool) float64 deviations from the mean of what is there, in its standard deviations."""
    count = np.maximum(there.sum(axis=-1, keepdims=True), 1)
    known = np.where(there, values, 0.0).astype(np.float64)
    apart = np.where(there, known - known.sum(axis=-1, keepdims=True) / count, 0.0)
    spread = np.sqrt((apart**2).sum(axis=-1, keepdims=True) / count)
    return np.asarray(apart / np.where(spread > 1e-9, spread, 1.0))
