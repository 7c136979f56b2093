"""Figures of ranked lists: accuracy per point, mean over a user's points, mean over users; intervals; more.

In: (points, k) item indices, -1 where a list ends early, and what each user then took. A point has one
target, so with r its 1-based place in the list (none: 0) and [.] 1 if true, else 0:
    nDCG@k = [1 <= r <= k] / log2(1 + r)      recall@k (hit rate) = [1 <= r <= k]
    MRR@k  = [1 <= r <= k] / r                precision@k = recall@k / k
(Järvelin & Kekäläinen 2002, eq. 5, whose ideal list has the target first, so its gain is 1.)
Intervals: percentile bootstrap over users (Efron & Tibshirani 1993, ch. 13), all models by the same
resamples, so that differences are paired; over items where items, not users, are what varies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Points
from pipeline.models.baselines import BLOCK_BYTES, blocks

ACCURACY = ("ndcg", "precision", "recall", "mrr")
LOW, HIGH = 2.5, 97.5  # per cent


def target_rank(listed: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(points, k) lists, (points,) targets -> (points,) 1-based place of the target; 0: not listed."""
    hit = (listed == target[:, None]) & (listed >= 0)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def discounted(rank: np.ndarray, k: int) -> np.ndarray:
    """nDCG@k where one item is relevant: 1 / log2(1 + rank) for 1-based ranks up to k, else 0."""
    hit = (rank > 0) & (rank <= k)
    return np.where(hit, 1 / np.log2(1 + np.where(hit, rank, 1)), 0.0)


def share_interval(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); NaN of nothing."""
    from scipy.stats import binomtest

    if not count:
        return math.nan, math.nan
    found = binomtest(successes, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def accuracy(rank: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """target_rank's (points,) -> each of ACCURACY at k, (points,) float64."""
    hit = (rank > 0) & (rank <= k)
    place = np.where(hit, rank, 1)
    return {
        "ndcg": discounted(rank, k),
        "precision": hit / k,
        "recall": hit.astype(float),
        "mrr": np.where(hit, 1 / place, 0.0),
    }


def group_means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(points,) or (points, columns) values -> the mean of each group, groups ascending. NaN stays NaN."""
    _, code = np.unique(group, return_inverse=True)
    counts = np.bincount(code)
    gather = sp.csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))), (len(counts), len(code)))
    return (gather @ values) / (counts if values.ndim == 1 else counts[:, None])


def mean_of_users(values: np.ndarray, user: np.ndarray) -> float:
    """Mean over users of the mean over a user's points, leaving out points whose value is NaN."""
    known = ~np.isnan(values)
    return float(group_means(values[known], user[known]).mean()) if known.any() else float("nan")


# Intervals ------------------------------------------------------------------------------------------------


def _resamples(count: int, samples: int, seed: int, width: int) -> Iterator[np.ndarray]:
    """Blocks of (samples, count) float64: how often each of `count` units is drawn, with replacement."""
    generator = np.random.default_rng(seed)
    for block in blocks(samples, 2 * max(count, width)):
        size = block.stop - block.start
        drawn = generator.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def user_bootstrap(user_means: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """(users, columns) -> (samples, columns): means over users drawn with replacement.

    Columns share the draws: the difference of two columns is a paired one.
    """
    users, columns = user_means.shape
    if not users:
        return np.full((samples, columns), np.nan)
    return np.concatenate([drawn @ user_means / users for drawn in _resamples(users, samples, seed, columns)])


def item_bootstrap(
    values: np.ndarray, user: np.ndarray, item: np.ndarray, samples: int, seed: int
) -> np.ndarray:
    """(points, columns) -> (samples, columns): the mean over users when target items are redrawn.

    A point counts as often as its item is drawn; users none of whose points are drawn are left out.
    """
    if not len(values):
        return np.full((samples, values.shape[1]), np.nan)
    _, user_code = np.unique(user, return_inverse=True)
    items, item_code = np.unique(item, return_inverse=True)
    users, width = user_code.max() + 1, values.shape[1]
    gather = sp.csr_matrix((np.ones(len(user)), (user_code, np.arange(len(user)))), (users, len(user)))
    result = []
    for drawn in _resamples(len(items), samples, seed, len(user) * (width + 1)):
        weight = drawn[:, item_code]  # (block, points)
        total = (gather @ weight.T).T  # (block, users)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [(gather @ (weight * values[:, column]).T).T / total for column in range(width)]
            result.append(np.stack([np.nanmean(mean, axis=1) for mean in means], axis=1))
    return np.concatenate(result)


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(samples, columns) -> the 2.5 and the 97.5 per cent quantiles, (columns,) each."""
    low, high = np.percentile(samples, [LOW, HIGH], axis=0)
    return low, high


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted for their number (Holm 1979): comparing all with alpha errs in at most alpha of the cases."""
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    adjusted, least = {}, 0.0
    for place, name in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - place) * p_values[name]))
        adjusted[name] = least
    return adjusted


# Beyond accuracy ------------------------------------------------------------------------------------------


def coverage(listed: np.ndarray, available: np.ndarray) -> float:
    """Share of the items in `available` ((items,) bool) that stand in at least one list."""
    shown = np.zeros(len(available) + 1, bool)
    shown[listed.ravel()] = True  # -1 falls on the spare last place
    return float(shown[:-1][available].mean()) if available.any() else float("nan")


def self_information(popularity: np.ndarray) -> np.ndarray:
    """(items,) bits: -log2 of the item's share of train's popularity; one is added to every count, so that
    unseen items have a finite value."""
    return -np.log2((popularity + 1) / (popularity.sum() + len(popularity)))


def list_means(listed: np.ndarray, item_values: np.ndarray) -> np.ndarray:
    """(points, k) lists -> (points,) mean of the listed items' values; NaN for an empty list."""
    present = listed >= 0
    total = np.where(present, item_values[listed], 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return total / present.sum(axis=1)


def list_diversity(listed: np.ndarray, vectors: np.ndarray, cutoffs: Sequence[int]) -> np.ndarray:
    """(points, cutoffs) 1 - mean cosine of all pairs of the first k; `vectors` (items, d) unit or zero rows.

    Zero rows (items without a vector) are left out; NaN if fewer than two items remain. The sum over pairs
    is (|sum of vectors|^2 - n) / 2, so no pair is formed. `cutoffs` ascend, the last at most the lists' k.
    """
    with_zero = np.vstack([vectors, np.zeros((1, vectors.shape[1]), vectors.dtype)])  # -1: the zero row
    has = np.asarray(with_zero.any(axis=1))
    listed = listed[:, : cutoffs[-1]]
    begins = [0, *cutoffs[:-1]]
    result = np.full((len(listed), len(cutoffs)), np.nan)
    for block in blocks(len(listed), listed.shape[1] * max(vectors.shape[1], 1)):
        present = has[listed[block]].astype(float)
        count = np.cumsum(np.add.reduceat(present, begins, axis=1), axis=1)
        total = np.cumsum(np.add.reduceat(with_zero[listed[block]], begins, axis=1), axis=1, dtype=np.float64)
        pairs = np.where(count > 1, count * (count - 1), np.nan)
        result[block] = 1 - (np.square(total).sum(axis=2) - count) / pairs
    return result


def percentiles(popularity: np.ndarray) -> np.ndarray:
    """(items,) in (0, 1): share of items less popular, ties counted half."""
    ordered = np.sort(popularity)
    below = np.searchsorted(ordered, popularity, side="left")
    up_to = np.searchsorted(ordered, popularity, side="right")
    return (below + up_to) / (2 * max(len(popularity), 1))


def history_means(points: Points, item_values: np.ndarray) -> np.ndarray:
    """(points,) mean value of the history's rows; NaN without a history."""
    size = max(1, BLOCK_BYTES // 16 // max(int(points.lengths.max(initial=1)), 1))
    parts = [np.zeros(0)]
    for chunk in points.chunks(size):
        point, row = chunk.rows()
        total = np.bincount(point, item_values[chunk.log.item[row]], minlength=len(chunk))
        with np.errstate(invalid="ignore"):
            parts.append(total / chunk.lengths)
    return np.concatenate(parts)
