"""BPR of `implicit` (Rendle et al. 2009) as a peer that ranks from live histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Prepared
from pipeline.evaluation.tuning import DISLIKED, HALF_LIVES, Prepares, Settings
from pipeline.models import baselines as b

GRID: dict[str, Sequence[Any]] = {
    "half_life": HALF_LIVES,
    "factors": (64, 32, 128),
    "learning_rate": (0.05, 0.02, 0.1),
    "regularisation": (0.01, 0.003, 0.03),
    "iterations": (100, 50, 200),
    "positives_only": (True, False),
    "disliked_weight": DISLIKED,
}


@dataclass(frozen=True)
class Bpr:
    """Item factors and biases; a user's factor comes from the live history.

    Who is not in train has none of its own, so it is made of the mean of the history's items, by the ridge
    regression that gives train's users.
    """

    vectors: np.ndarray  # (items, factors) float32; zero for items never in train
    bias: np.ndarray  # (items,)
    known: np.ndarray  # (items,) bool
    to_user: np.ndarray  # (factors + 1, factors): mean of items and a one -> user

    def score(self, weights: sp.csr_matrix) -> np.ndarray:
        """(points, items) weights of the history -> (points, items) float32; NaN: unknown, or no history."""
        scores = with_one(mean(weights, self.vectors, self.known)) @ self.to_user @ self.vectors.T + self.bias
        scores[:, ~self.known] = np.nan
        scores[weights @ self.known.astype(np.float32) == 0] = np.nan
        return scores.astype(np.float32)


def mean(weights: sp.csr_matrix, vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(points, items) weights -> (points, factors) weighted means over known items; zero without one."""
    total = np.asarray(weights @ known.astype(np.float32))[:, None]
    return (weights @ vectors) / np.where(total > 0, total, 1)


def with_one(rows: np.ndarray) -> np.ndarray:
    return np.hstack([rows, np.ones((len(rows), 1), rows.dtype)])


def fit(
    matrix: sp.csr_matrix,
    factors: int,
    learning_rate: float,
    regularisation: float,
    iterations: int,
    seed: int,
) -> Bpr:
    """One thread, so that the same seed gives the same factors."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=learning_rate,
        regularization=regularisation,
        iterations=iterations,
        random_state=seed,
        num_threads=1,
    )
    model.fit(matrix.astype(np.float32), show_progress=False)
    known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
    items = np.where(known[:, None], np.asarray(model.item_factors), 0).astype(np.float32)
    vectors, bias = np.ascontiguousarray(items[:, :-1]), items[:, -1]  # implicit's last column is the bias
    there = np.diff(matrix.indptr) > 0
    told = with_one(mean(matrix[there], vectors, known).astype(np.float64))
    ridge = told.T @ told + 1e-3 * len(told) * np.eye(factors + 1) / (factors + 1)
    to_user = np.linalg.solve(ridge, told.T @ np.asarray(model.user_factors)[there, :-1])
    return Bpr(vectors, bias, known, to_user.astype(np.float32))


def bpr(prepared: Prepared, seed: int) -> Prepares:
    """What pipeline/evaluation/tuning.py wants of a baseline."""
    items = len(prepared.catalogue)

    @lru_cache(maxsize=16)
    def fitted(positives_only: bool, *settings: float) -> Bpr:
        matrix = b.interactions(prepared.log, b.train_rows(prepared.log, positives_only), items)
        factors, learning_rate, regularisation, iterations = settings
        return fit(matrix, int(factors), learning_rate, regularisation, int(iterations), seed)

    def build(settings: Settings) -> b.Scorer:
        names = ("positives_only", "factors", "learning_rate", "regularisation", "iterations")
        model = fitted(*(settings[name] for name in names))
        return b.HistoryScorer("bpr", items, model.score, settings["half_life"], settings["disliked_weight"])

    return build, GRID
