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
TOGETHER = 5  # points whose rows are added up at once
GROUP = 64  # scores of which the greatest is found first

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


def sums_at(
    turned: sp.csr_matrix, point: np.ndarray, row: np.ndarray, weight: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """(kinds, points, n) float32: of each point the sum of some rows of a matrix, at n of its columns.

    `turned`: the matrix, transposed; `point`, `row`: (cells,) the rows of each point, point by point;
    `weight`: (kinds, cells) what each counts; `column`: (points, n), -1: none, 0 there. What no point asks
    for is not added up, so a pair costs what its column holds, however large the matrix.
    """
    kinds = len(weight)
    out = np.zeros((kinds, *column.shape), np.float32)
    counts = np.zeros((turned.shape[1], TOGETHER, kinds), np.float32)  # written and cleared
    for begin in range(0, len(column), TOGETHER):
        cells = slice(*np.searchsorted(point, [begin, begin + TOGETHER]))
        of_point, place = np.nonzero(column[begin : begin + TOGETHER] >= 0)
        if cells.start == cells.stop or not len(place):
            continue
        counts[row[cells], point[cells] - begin] = weight[:, cells].T
        # Of all points that are counted at once, which lies in one line of the processor's cache.
        sums = turned[column[begin + of_point, place]] @ counts.reshape(len(counts), -1)
        sums = sums.reshape(len(place), TOGETHER, kinds)[np.arange(len(place)), of_point]
        out[:, begin + of_point, place] = sums.T
        counts[row[cells]] = 0
    return out


def sums_from(
    matrix: sp.csr_matrix, point: np.ndarray, row: np.ndarray, weight: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """The same, of the matrix as it is: all that the points' rows lead to is added up, whether asked for or
    not. Quicker where histories are short and points ask for much."""
    kinds, points = len(weight), len(column)
    kind, cell = np.nonzero(weight)
    ends = np.r_[0, np.cumsum(np.bincount(kind * points + point[cell], minlength=kinds * points))]
    of_histories = (weight[kind, cell], row[cell], ends)
    sums = sp.csr_matrix(of_histories, shape=(kinds * points, matrix.shape[0])) @ matrix
    return lookup(sums, np.tile(column, (kinds, 1))).reshape(kinds, *column.shape)


def gathered(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(items,) values of each candidate, float32; 0 for none."""
    return np.where(items >= 0, values[np.maximum(items, 0)], 0).astype(np.float32)


def product(users: np.ndarray, vectors: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(points, d) users, (catalogue, d) vectors -> the product of each pair."""
    return products(users[:, None], vectors, items)[0]


def products(users: np.ndarray, vectors: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(points, kinds, d) users, (catalogue, d) vectors -> (kinds, points, candidates) products."""
    users, safe = users.astype(np.float32), np.maximum(items, 0)
    out = np.empty((users.shape[1], *items.shape), np.float32)
    for point in range(len(items)):  # the vectors of all points' candidates at once would leave the cache
        out[:, point] = users[point] @ vectors.take(safe[point], axis=0).T
    return np.where(items >= 0, out, 0)


def standardised(column: np.ndarray, items: np.ndarray, width: int | None = None) -> np.ndarray:
    """Each point's column minus its mean over the candidates, over its deviation; a constant one becomes 0.

    `width`: how many of the candidates count (the others were added for training). None of n values can be
    further than sqrt(n) deviations from their mean, so the others, which no list shows, are cut off there.
    """
    there = items >= 0
    counts = there.copy()
    counts[:, width:] = width is None
    counts &= there
    number = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    centred = column - np.where(counts, column, 0).sum(axis=1, keepdims=True) / number
    deviation = np.sqrt(np.where(counts, centred**2, 0).sum(axis=1, keepdims=True) / number)
    furthest = np.sqrt(number)
    scaled = np.clip(centred / np.where(deviation > 1e-8, deviation, 1), -furthest, furthest)
    return np.where(there, scaled, 0).astype(np.float32)


def best_cells(matrix: sp.csr_matrix, n: int) -> np.ndarray:
    """(points, n) int32: columns of the greatest positive cells of each row, best first, ties by place."""
    if matrix.shape[0] * matrix.shape[1] <= DENSE:  # quicker than row by row
        dense = matrix.toarray()
        return best_columns(np.where(dense > 0, dense, -np.inf), n)
    out = np.full((matrix.shape[0], n), -1, np.int32)
    for row in range(matrix.shape[0]):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        data, column = matrix.data[span], matrix.indices[span]
        if len(data) > n:
            kept = np.flatnonzero(data >= np.partition(data, len(data) - n)[len(data) - n])
            data, column = data[kept], column[kept]
        order = np.lexsort((column, -data))[:n]
        order = order[data[order] > 0]
        out[row, : len(order)] = column[order]
    return out


def best_columns(scores: np.ndarray, n: int, numbers: np.ndarray | None = None) -> np.ndarray:
    """(points, n) int32: columns of the greatest finite scores, best first; `numbers`: their items."""
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    place = largest(scores, n)
    there = np.take_along_axis(scores, place, axis=1) > -np.inf
    out = np.full((len(scores), n), -1, np.int32)
    out[:, : place.shape[1]] = np.where(there, place if numbers is None else numbers[place], -1)
    return out


def largest(scores: np.ndarray, n: int) -> np.ndarray:
    """(rows, at most n) places of the largest cells of each row, best first, of equal ones the first."""
    count = scores.shape[1]
    if n >= count:
        return np.argsort(-scores, axis=1, kind="stable")
    if len(scores) == 1:
        place = reaching(scores[0], n)
        return place[np.argsort(-scores[0, place], kind="stable")][None, :n]
    place = _some_largest(scores, n)
    values = np.take_along_axis(scores, place, axis=1)
    best = np.take_along_axis(place, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # Where more cells than are wanted reach the least of the chosen, any of them may have been taken.
    least = values.min(axis=1, keepdims=True)
    for row in np.flatnonzero((scores >= least).sum(axis=1) > n):
        reached = np.flatnonzero(scores[row] >= least[row])
        best[row] = reached[np.argsort(-scores[row, reached], kind="stable")[:n]]
    return best


def reaching(scores: np.ndarray, n: int) -> np.ndarray:
    """Places, ascending, of the (cells,) scores that reach the n-th largest: n, and those equal to it."""
    count = len(scores)
    if n >= count:
        return np.arange(count)
    groups, place = count // GROUP, None
    if groups > n:  # the n largest reach the n-th largest of the groups' maxima
        greatest = maxima(scores[None])[0]
        place = np.flatnonzero(scores >= np.partition(greatest, groups - n)[groups - n])
        scores = scores[place]
    reached = np.flatnonzero(scores >= np.partition(scores, len(scores) - n)[len(scores) - n])
    return reached if place is None else place[reached]


def _some_largest(scores: np.ndarray, n: int) -> np.ndarray:
    """(rows, n) places, ascending, of the largest cells of each row; of equal ones at the end any."""
    count = scores.shape[1]
    groups = count // GROUP
    if groups <= 8 * n:  # few: at once
        return np.sort(np.argpartition(scores, count - n, axis=1)[:, count - n :], axis=1)
    # The n largest lie in the n groups with the largest maxima, or in what is left over behind the groups.
    group = np.argpartition(maxima(scores), groups - n, axis=1)[:, groups - n :]
    inside = (group[:, :, None] + np.arange(GROUP) * groups).reshape(len(scores), -1)
    behind = np.broadcast_to(np.arange(groups * GROUP, count), (len(scores), count - groups * GROUP))
    place = np.concatenate([inside, behind], axis=1)
    values = np.take_along_axis(scores, place, axis=1)
    best = np.argpartition(values, place.shape[1] - n, axis=1)[:, place.shape[1] - n :]
    return np.sort(np.take_along_axis(place, best, axis=1), axis=1)


def maxima(scores: np.ndarray, size: int = GROUP) -> np.ndarray:
    """(rows, groups) greatest score of each group of `size`; cells left over at the end are in none.

    Members of a group lie `groups` cells apart: to compare whole vectors takes a tenth of the time that to
    compare neighbouring cells does.
    """
    groups = scores.shape[1] // size
    found: np.ndarray = scores[:, : groups * size].reshape(len(scores), size, groups).max(axis=1)
    return found


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
