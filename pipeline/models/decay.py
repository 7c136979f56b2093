"""Decayed counts along the rows of each item, and the items that have the most of them."""

from __future__ import annotations

import numpy as np

from pipeline.data.histories import MICROSECONDS_A_DAY

CELLS = 2_000_000  # of the largest temporary array


def decayed_sums(item: np.ndarray, time: np.ndarray, half_lives: tuple[float, ...]) -> np.ndarray:
    """(rows, half-lives): S_j = 1 + S_(j-1) 2^(-(t_j - t_(j-1)) / half-life) along each item's rows.

    A scan by doubling: after the pass of width w a row holds the sum over its newest 2w rows. No term is ever
    above 1, so that no span overflows. O(n log(rows of an item)).
    """
    sums = np.ones((len(item), len(half_lives)))
    new = np.r_[True, np.diff(item) != 0] if len(item) else np.zeros(0, bool)
    place = np.arange(len(item)) - np.maximum.accumulate(np.where(new, np.arange(len(item)), 0))
    width = 1
    while len(rows := np.flatnonzero(place >= width)):
        gap = (time[rows] - time[rows - width]) / MICROSECONDS_A_DAY
        for column, half_life in enumerate(half_lives):
            column_sums = sums[:, column]
            column_sums[rows] += column_sums[rows - width] * np.exp2(-gap / half_life)
        width *= 2
    return sums


def best_of_block(
    heights: np.ndarray, item: np.ndarray, height: np.ndarray, stops: np.ndarray, n: int
) -> np.ndarray:
    """(stops, n) best items, given the heights when the block starts and its first `stop` successes."""
    found = np.union1d(largest(heights, n), item)
    column = np.searchsorted(found, item)
    # Whole numbers for (height, smaller index), so that a partition is exact in ties as well.
    level = np.unique(np.r_[heights[found], height], return_inverse=True)[1]
    level = level * len(found) + (len(found) - 1 - np.r_[np.arange(len(found)), column])
    level[: len(found)][heights[found] == -np.inf] = -1
    lists = np.full((len(stops), n), -1, np.int32)
    if not len(found):
        return lists
    current, done = level[: len(found)], 0
    chunk = max(1, CELLS // len(found))
    for begin in range(0, len(stops), chunk):
        part = stops[begin : begin + chunk]
        table = np.full((len(part), len(found)), -1)
        table[0] = current
        row = np.searchsorted(part, np.arange(done, part[-1]), side="right")
        np.maximum.at(table, (row, column[done : part[-1]]), level[len(found) + done : len(found) + part[-1]])
        np.maximum.accumulate(table, axis=0, out=table)
        current, done = table[-1].copy(), part[-1]
        width = min(n, len(found))
        best = np.partition(table, len(found) - width, axis=1)[:, len(found) - width :]
        best = -np.sort(-best, axis=1)
        lists[begin : begin + chunk, :width] = np.where(
            best >= 0, found[len(found) - 1 - best % len(found)], -1
        )
    return lists


def largest(heights: np.ndarray, n: int) -> np.ndarray:
    """The n items of the greatest finite heights, ties by smaller index; in no order."""
    finite = np.flatnonzero(heights > -np.inf)
    if len(finite) <= n:
        return finite
    values = heights[finite]
    least = np.partition(values, len(values) - n)[len(values) - n]
    above, equal = finite[values > least], finite[values == least]
    return np.r_[above, equal[: n - len(above)]]
