"""Pairs of a point and a candidate item: the arrays that retrievers, features and the scorer exchange.

`items` is everywhere (points, candidates) int32 item indices, -1 where a point has fewer candidates; a
column is a float32 array of that shape. No array here has a side as long as the catalogue but for blocks of
bounded size.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Points

DENSE = 2**20  # cells up to which a sparse matrix is read as a dense one
GROUP = 64  # scores of which the greatest is found first
BLOCK = 65_536  # items whose products with the users are in memory at a time

Columns = dict[str, np.ndarray]
"""Name of a feature -> (points, candidates) float32."""

Retrieved = dict[str, np.ndarray]
"""Name of a retriever -> (points, n) int32 item indices, best first, -1 where it has no more."""


def lookup(matrix: sp.csr_matrix, items: np.ndarray) -> np.ndarray:
    """The cells (point, item) of a (points, items) sparse matrix without duplicates; 0 where it has none."""
    matrix = sp.csr_matrix(matrix)
    out = np.zeros(items.shape, np.float32)
    row = np.zeros(matrix.shape[1], np.float32)  # one point's, written and cleared: no cell is sorted
    for point in range(len(items)):
        span = slice(matrix.indptr[point], matrix.indptr[point + 1])
        row[matrix.indices[span]] = matrix.data[span]
        out[point] = row[items[point]]  # -1 reads the last item: taken back below
        row[matrix.indices[span]] = 0
    out[items < 0] = 0
    return out


def gathered(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(items,) values of each candidate, float32; 0 for none."""
    return np.where(items >= 0, values[np.maximum(items, 0)], 0).astype(np.float32)


def product(users: np.ndarray, vectors: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(points, d) users, (catalogue, d) vectors -> the product of each pair."""
    out = np.matmul(vectors[np.maximum(items, 0)], users[:, :, None].astype(np.float32))[:, :, 0]
    return np.where(items >= 0, out, 0)


def standardised(column: np.ndarray, items: np.ndarray, width: int | None = None) -> np.ndarray:
    """Each point's column minus its mean over the candidates, over its deviation; a constant one becomes 0.

    `width`: how many of the candidates count (the others were added for training).
    """
    there = items >= 0
    counts = there.copy()
    counts[:, width:] = width is None
    counts &= there
    number = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    centred = column - np.where(counts, column, 0).sum(axis=1, keepdims=True) / number
    deviation = np.sqrt(np.where(counts, centred**2, 0).sum(axis=1, keepdims=True) / number)
    return np.where(there, centred / np.where(deviation > 1e-8, deviation, 1), 0).astype(np.float32)


def best_products(
    users: np.ndarray, vectors: np.ndarray, n: int, allowed: np.ndarray | None = None
) -> np.ndarray:
    """(points, n) int32: the items with the greatest products, best first. `allowed`: (catalogue,) bool."""
    # Few items are gathered; of many the others are computed as well, which a copy would cost more than.
    few = allowed is not None and 2 * int(allowed.sum()) < len(allowed)
    numbers = np.arange(len(vectors)) if allowed is None or not few else np.flatnonzero(allowed)
    best = np.full((len(users), 0), -1, np.int64)
    score = np.zeros((len(users), 0), np.float32)
    for begin in range(0, len(numbers), BLOCK):
        block = numbers[begin : begin + BLOCK]
        rows = vectors[block] if few else vectors[begin : begin + BLOCK]
        scores = users.astype(np.float32) @ rows.T
        if allowed is not None and not few:
            scores[:, ~allowed[block]] = -np.inf
        place = _largest(scores, n)
        best = np.concatenate([best, block[place]], axis=1)
        score = np.concatenate([score, np.take_along_axis(scores, place, axis=1)], axis=1)
    return _padded(best, score, n)


def best_cells(matrix: sp.csr_matrix, n: int) -> np.ndarray:
    """(points, n) int32: the columns of the greatest positive cells of each row, best first."""
    if matrix.shape[0] * matrix.shape[1] <= DENSE:  # quicker than row by row
        dense = matrix.toarray()
        return best_columns(np.where(dense > 0, dense, -np.inf), n)
    out = np.full((matrix.shape[0], n), -1, np.int32)
    for row in range(matrix.shape[0]):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        data, column = matrix.data[span], matrix.indices[span]
        if len(data) > n:
            kept = np.argpartition(-data, n - 1)[:n]
            data, column = data[kept], column[kept]
        order = np.argsort(-data, kind="stable")
        order = order[data[order] > 0]
        out[row, : len(order)] = column[order]
    return out


def best_columns(scores: np.ndarray, n: int, numbers: np.ndarray | None = None) -> np.ndarray:
    """(points, n) int32: columns of the greatest finite scores, best first; `numbers`: their items."""
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    place = _largest(scores, n)
    value = np.take_along_axis(scores, place, axis=1)
    return _padded(place if numbers is None else numbers[place], value, n)


def _largest(scores: np.ndarray, n: int) -> np.ndarray:
    """(rows, at most n) places of the largest cells of each row, in any order."""
    count = scores.shape[1]
    if count <= n:
        return np.broadcast_to(np.arange(count), scores.shape)
    groups = count // GROUP
    if groups <= 8 * n:  # few: at once
        return np.argpartition(-scores, n - 1, axis=1)[:, :n]
    # The n largest lie in the n groups with the largest maxima, or in what is left over behind the groups.
    maxima = scores[:, : groups * GROUP].reshape(len(scores), groups, GROUP).max(axis=2)
    group = np.argpartition(-maxima, n - 1, axis=1)[:, :n]
    inside = (group[:, :, None] * GROUP + np.arange(GROUP)).reshape(len(scores), -1)
    behind = np.broadcast_to(np.arange(groups * GROUP, count), (len(scores), count - groups * GROUP))
    place = np.concatenate([inside, behind], axis=1)
    best = np.argpartition(-np.take_along_axis(scores, place, axis=1), n - 1, axis=1)[:, :n]
    return np.take_along_axis(place, best, axis=1)


def _padded(items: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    order = np.argsort(-score, axis=1, kind="stable")[:, :n]
    listed = np.where(
        np.take_along_axis(score, order, axis=1) > -np.inf, np.take_along_axis(items, order, axis=1), -1
    )
    out = np.full((len(items), n), -1, np.int32)
    out[:, : listed.shape[1]] = listed
    return out


def history_matrix(points: Points, items: int) -> sp.csr_matrix:
    """(points, items) float32: how often each item stands in the strict history."""
    point, row = points.rows()
    cells = (np.ones(len(row), np.float32), (point, points.log.item[row]))
    return sp.csr_matrix(cells, shape=(len(points), items))


def excluded_matrix(points: Points, items: int) -> sp.csr_matrix:
    """(points, items) float32, not zero where an item may not be listed for what the user took before."""
    point, item = points.excluded()
    cells = (np.ones(len(item), np.float32), (point, item))
    return sp.csr_matrix(cells, shape=(len(points), items))
