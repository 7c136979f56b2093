"""Factor models that have a factor for each of train's users, made to rank from live histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

RIDGE = 1e-3  # of the squares' mean


@dataclass(frozen=True)
class FactorModel:
    """Item vectors and biases; a user's vector comes from the live history.

    Who is not in train has none of its own, so it is made of the mean of the history's items, by the ridge
    regression that gives train's users.
    """

    vectors: np.ndarray  # (items, factors) float32; zero where not known
    bias: np.ndarray  # (items,)
    known: np.ndarray  # (items,) bool: those that have a vector
    to_user: np.ndarray  # (factors + 1, factors): mean of items and a one -> user

    @classmethod
    def of(
        cls,
        matrix: sp.csr_matrix,
        users: np.ndarray,
        vectors: np.ndarray,
        bias: np.ndarray,
        known: np.ndarray,
    ) -> FactorModel:
        """Of `matrix` (users, items), fitted, and `users` (users, factors); none of a user without a row."""
        vectors = np.ascontiguousarray(np.where(known[:, None], vectors, 0), dtype=np.float32)
        there = np.diff(matrix.indptr) > 0
        told = with_one(mean(matrix[there], vectors, known).astype(np.float64))
        ridge = told.T @ told + RIDGE * len(told) * np.eye(told.shape[1]) / told.shape[1]
        to_user = np.linalg.solve(ridge, told.T @ users[there])
        return cls(vectors, np.where(known, bias, 0).astype(np.float32), known, to_user.astype(np.float32))

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
