"""The items whose vectors have the greatest products with a user's, among those that may be retrieved."""

from __future__ import annotations

import numpy as np

from pipeline.models.pairs import best_columns, largest

BLOCK = 65_536  # items whose products with the users are in memory at a time


class Nearest:
    """Item vectors, ready to be searched."""

    def __init__(self, vectors: np.ndarray, allowed: np.ndarray) -> None:
        """(catalogue, d) float32; (catalogue,) bool: which of them may be found."""
        self.numbers = np.flatnonzero(allowed).astype(np.int32)
        every = len(self.numbers) == len(vectors)
        self.vectors = np.ascontiguousarray(vectors if every else vectors[self.numbers], np.float32)

    def best(self, users: np.ndarray, n: int) -> np.ndarray:
        """(points, d) -> (points, n) int32 items of the greatest products, best first, -1 behind.

        Equal products by place in the catalogue.
        """
        users = users.astype(np.float32)
        numbers, scores = [], []
        for begin in range(0, len(self.numbers), BLOCK):
            of_block = _products(users, self.vectors[begin : begin + BLOCK])
            place = largest(of_block, n)
            numbers.append(self.numbers[begin + place])
            scores.append(np.take_along_axis(of_block, place, axis=1))
        if not numbers:
            return np.full((len(users), n), -1, np.int32)
        found, score = np.concatenate(numbers, axis=1), np.concatenate(scores, axis=1)
        place = best_columns(score, n)  # blocks come in order, so that equal ones stay in order
        return np.where(place >= 0, np.take_along_axis(found, np.maximum(place, 0), axis=1), -1)


def _products(users: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(points, items); of one point by one pass over the vectors."""
    return (vectors @ users[0])[None] if len(users) == 1 else users @ vectors.T
