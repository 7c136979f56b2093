"""Sums over a few items of a large catalogue for one point, and the best of them: no pass over all items."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from pipeline.models.pairs import reaching


def rows_of(matrix: sp.csr_matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(columns, values, cells of each row) of some rows of a sparse matrix, one row behind another."""
    start, stop = matrix.indptr[rows], matrix.indptr[rows + 1]
    # One copy of each row is quicker than taking cell by cell.
    spans = list(map(slice, start.tolist(), stop.tolist())) or [slice(0, 0)]
    columns = np.concatenate([matrix.indices[span] for span in spans])
    return columns, np.concatenate([matrix.data[span] for span in spans]), stop - start


def best_cells(items: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """(1, n) int32 items of the greatest scores above 0, best first, ties by item, -1 behind.

    `items`, `scores`: (cells,), each item once.
    """
    place = reaching(scores, n)
    place = place[scores[place] > 0]
    place = place[np.lexsort((items[place], -scores[place]))][:n]
    found = np.full((1, n), -1, np.int32)
    found[0, : len(place)] = items[place]
    return found


class Space:
    """Places of a few items among all of a catalogue, written and read without clearing."""

    def __init__(self, items: int) -> None:
        self.places = np.zeros(items, np.intp)
        self._written: np.ndarray | None = None  # the items that `places` is of

    def different(self, items: np.ndarray) -> np.ndarray:
        """Each of the (n,) items once, in the order in which they come first."""
        self._written = None
        numbers = np.arange(len(items))
        self.places[items[::-1]] = numbers[::-1]  # of equal ones the last that is written stays: the first
        return items[self.places[items] == numbers]

    def among(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(n,) bool: which of the items are among the others."""
        return self._found(items, others)[1]

    def sums(self, items: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(different items, their sums (rows, items) float32) of cells (n,) items and (rows, n) values."""
        self._written = None
        items, numbers = items.astype(np.intp), np.arange(len(items))
        self.places[items] = numbers
        last = self.places.take(items)  # of each cell, the last one of its item
        ends = last == numbers
        different = items[ends]
        place = (ends.cumsum() - 1).take(last)
        sums = np.empty((len(values), len(different)), np.float32)
        for number, row in enumerate(values):
            sums[number] = np.bincount(place, row, minlength=len(different))
        return different, sums

    def read(self, items: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """(rows, wanted): of (rows, items) values those of the wanted items, 0 for others."""
        if not len(items):
            return np.zeros((len(values), len(wanted)), np.float32)
        place, there = self._found(wanted, items)
        return values.take(place, axis=1) * there

    def _found(self, items: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place of each item among the others, whether it is there)."""
        if not len(others):
            return np.zeros(len(items), np.intp), np.zeros(len(items), bool)
        if self._written is not others:  # elsewhere stands what was there before
            self.places[others] = np.arange(len(others))
            self._written = others
        place = np.minimum(self.places.take(items), len(others) - 1)
        return place, others.take(place) == items
