"""A policy for the places that lists leave to chance, learned from the log of what they showed.

It weighs exploration.COLUMNS of an item; how much was taken of its lists is compared with the same model's
plain draws. Of each list the doubly robust estimate (Dudik, Langford & Li 2011; step by step as Jiang & Li
2016): what a model of the reward predicts of the policy's draws, and at each place drawn the weight so far
(product of new / logged) times what was taken beyond its prediction. Propensities are known, so it has no
bias, whatever the model of the reward.

Rule: the weights maximise the mean gain less PENALTY standard errors (counterfactual risk minimisation,
Swaminathan & Joachims 2015) and less RIDGE for their distance from plain draws. One half of the
users (by a hash) teaches weights and model of the reward, the other half's lists are estimated: nobody's log
speaks for the weights that it made. Tried first: five folds, each estimated by what the others taught. Where
there is nothing to learn their errors go together, and intervals are too narrow (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pipeline.evaluation.exploration import COLUMNS, MOST, PLACES, PLAIN, learned, teaches
from pipeline.evaluation.off_policy import Estimate, mean_of

PENALTY, RIDGE = 2.0, 1e-4
LEAST_LISTS = 50  # of either half
SMOOTH = 10.0  # rows of the mean reward that the reward's model begins with


@dataclass(frozen=True)
class Explored:
    """Of lists, what their last places were drawn from and what came of it."""

    columns: np.ndarray  # (lists, pool, COLUMNS)
    plain: np.ndarray  # (lists, pool) the model's plain worths; 0: no item
    place: np.ndarray  # (lists, PLACES) in the pool
    logged: np.ndarray  # (lists, PLACES) with which chance it was drawn
    reward: np.ndarray  # (lists, PLACES)
    user: np.ndarray  # (lists,) ids

    def at(self, rows: np.ndarray) -> Explored:
        return Explored(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def taken(self) -> np.ndarray:
        """(lists, PLACES, COLUMNS) of what was drawn."""
        return self.columns[np.arange(len(self.place))[:, None], self.place]


@dataclass(frozen=True)
class Learned:
    weights: tuple[float, ...]  # of COLUMNS
    gain: Estimate  # in items taken a place, above the plain draws, of users who did not teach


def learn(log: Explored) -> Learned | None:
    """None where a half has too few lists."""
    own = np.array([teaches(user) for user in log.user], bool)
    taught, judged = log.at(own), log.at(~own)
    if min(len(taught.user), len(judged.user)) < LEAST_LISTS:
        return None
    weights, predicted = _fitted(taught), rewards(taught, judged)
    new, weight = earned(judged, learned(weights, judged.columns, judged.plain > 0), predicted)
    each = (new - earned(judged, judged.plain, predicted)[0]) / PLACES
    return Learned(weights, mean_of(each, weight, judged.user))


def earned(log: Explored, worth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((lists,) estimates of what is taken of a list's PLACES by draws of these worths, (lists,) weights).

    `predicted`: (lists, pool) the reward of each item by a model of it.
    """
    rows = np.arange(len(worth))
    total, foretold = worth.sum(axis=1, keepdims=True), worth * predicted
    # After the first item is drawn, the second is from what is left.
    second = (foretold.sum(axis=1, keepdims=True) - foretold) / np.maximum(total - worth, 1e-300)
    found = (worth * (predicted + second)).sum(axis=1) / total[:, 0]
    left, weight = total[:, 0], np.ones(len(worth))
    for number in range(PLACES):
        at = log.place[:, number]
        weight = weight * worth[rows, at] / left / log.logged[:, number]
        found = found + weight * (log.reward[:, number] - predicted[rows, at])
        left = left - worth[rows, at]
    return found, weight


def rewards(taught: Explored, asked: Explored) -> np.ndarray:
    """(lists, pool) of `asked` by a ridge regression of the reward on the columns, fitted on `taught`."""
    x, y = taught.taken.reshape(-1, len(COLUMNS)), taught.reward.ravel()
    mean = y.mean()
    slope = np.linalg.solve(x.T @ x + SMOOTH * np.eye(x.shape[1]), x.T @ (y - mean))
    return np.asarray(np.clip(mean + asked.columns @ slope, 0.0, 1.0))


def _fitted(log: Explored) -> tuple[float, ...]:
    """Weights, rounded as an impression tells them."""
    # Each half's rewards are predicted by the other's, so that the weights do not chase what was fitted.
    _, place = np.unique(log.user, return_inverse=True)
    predicted = np.zeros(log.plain.shape)
    for half in (place % 2 == 0, place % 2 == 1):
        predicted[half] = rewards(log.at(~half), log.at(half))
    old, there, count = earned(log, log.plain, predicted)[0], log.plain > 0, len(place)

    def loss(weights: np.ndarray) -> float:
        gain = (earned(log, learned(weights, log.columns, there), predicted)[0] - old) / PLACES
        mean = gain.mean()
        error = np.sqrt((np.bincount(place, gain - mean) ** 2).sum()) / count
        return float(PENALTY * error - mean + RIDGE * ((weights - PLAIN) ** 2).sum())

    bounds = [(-MOST, MOST)] * len(COLUMNS)
    slope = np.linalg.lstsq(log.taken.reshape(-1, len(COLUMNS)), log.reward.ravel() - log.reward.mean())[0]
    size = np.abs(slope).max()
    starts = [np.array(PLAIN), slope / size if size > 0 else np.array(PLAIN)]
    tried = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    found = min(tried, key=lambda one: float(one.fun))
    return tuple(float(f"{weight:.3f}") for weight in found.x)
