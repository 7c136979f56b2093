"""Permutation tests over blocks: is one side different from the other, and by more than chance?

Rows of one user are not independent, so the unit is the block: one user's rows on one side (for volumes, one
day). Each block has sufficient statistics, a row of sums; a side is the sum of its blocks; a statistic
compares two sides. Labels are permuted among blocks, as many on either side as there are, and
    p = (1 + #{T_permuted >= T}) / (1 + draws)
(Phipson & Smyth 2010; exact where blocks are exchangeable). One set of labels serves all statistics, one
product of matrices all draws of a chunk. A statistic whose p is surely large is dropped after some draws
(Besag & Clifford 1991). `Tested.excess` is T less the median of the permuted ones: distances between samples
are above 0 even where nothing changed, the more so the fewer blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline.evaluation.metrics import interval, user_bootstrap

CHUNK_CELLS = 4_000_000  # of labels, and of one statistic's sums
LEAST_DRAWS, ENOUGH_ABOVE = 199, 60  # a statistic with so many permuted ones above it is dropped
_ROUNDING = 1e-9

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Part:
    """(blocks, columns) sums and the (draws, columns) x 2 -> (draws,) statistic of reference and current."""

    sums: sp.csr_matrix | np.ndarray
    statistic: Statistic
    observed: float | None = None  # instead of the statistic of the sides as they are


@dataclass(frozen=True)
class Tested:
    """A statistic of the sides as they are, and what permuted sides gave."""

    statistic: float
    median: float
    p_value: float
    reference: np.ndarray  # (columns,) the side's sums
    current: np.ndarray

    @property
    def excess(self) -> float:
        return self.statistic - self.median


def permutation_tests(
    current: np.ndarray, parts: Mapping[str, Part], draws: int, seed: int
) -> dict[str, Tested]:
    """`current`: (blocks,) bool. Both sides need a block. Same seed, same result."""
    if current.all() or not current.any():
        raise ValueError("a side without a block")
    sides = {name: _sides(part.sums, current[None, :]) for name, part in parts.items()}
    observed = {
        name: float(part.statistic(*sides[name])[0]) if part.observed is None else part.observed
        for name, part in parts.items()
    }
    permuted: dict[str, list[np.ndarray]] = {name: [] for name in parts}
    above = dict.fromkeys(parts, 0)
    open_ones, done = set(parts), 0
    widest = max([len(current), *(part.sums.shape[1] for part in parts.values())])
    for labels in _labels(current, draws, max(1, CHUNK_CELLS // widest), seed):
        for name in sorted(open_ones):
            found = parts[name].statistic(*_sides(parts[name].sums, labels))
            permuted[name].append(found)
            above[name] += int((found >= observed[name] - _ROUNDING).sum())
        done += len(labels)
        if done >= LEAST_DRAWS:
            open_ones = {name for name in open_ones if above[name] < ENOUGH_ABOVE}
        if not open_ones:
            break
    result = {}
    for name, chunks in permuted.items():
        found = np.concatenate(chunks)
        p_value = (1 + above[name]) / (1 + len(found))
        reference, new = (side[0] for side in sides[name])
        result[name] = Tested(observed[name], float(np.median(found)), p_value, reference, new)
    return result


def _labels(current: np.ndarray, draws: int, chunk: int, seed: int) -> Iterator[np.ndarray]:
    """(at most chunk, blocks) float64 with as many ones in each row as `current` has."""
    generator = np.random.default_rng(seed)
    chunk = min(chunk, LEAST_DRAWS + 1)
    for begin in range(0, draws, chunk):
        size = min(chunk, draws - begin)
        yield generator.permuted(np.tile(current.astype(np.float64), (size, 1)), axis=1)


def _sides(sums: sp.csr_matrix | np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(draws, blocks) labels -> (draws, columns) sums of the reference and of the current blocks."""
    new = np.asarray((sums.T @ labels.T).T)
    return np.asarray(sums.sum(axis=0)).ravel()[None, :] - new, new


# Statistics: (draws, columns) sums of the reference, the same of the current side -> (draws,) --------------


def total_variation(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Half the L1 distance of the two distributions over the columns: the share that would have to move."""
    return np.abs(_shares(current) - _shares(reference)).sum(axis=1) / 2


def gap(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Largest distance of the cumulative distributions, columns being ordered (Kolmogorov-Smirnov)."""
    return np.abs(np.cumsum(_shares(current) - _shares(reference), axis=1)).max(axis=1, initial=0)


def mean_differences(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """(draws, pairs): columns are pairs (sum, weight); the current mean less the reference's."""
    means = [_ratio(side[:, 0::2], side[:, 1::2]) for side in (reference, current)]
    return means[1] - means[0]


def rise(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """The largest of mean_differences."""
    return mean_differences(reference, current).max(axis=1)


def change(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """The largest of mean_differences in either direction."""
    return np.abs(mean_differences(reference, current)).max(axis=1)


def shift(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Columns: sums of a vector, the weight last; Euclidean distance of the two means."""
    means = [_ratio(side[:, :-1], side[:, -1:]) for side in (reference, current)]
    return np.sqrt(np.square(means[1] - means[0]).sum(axis=1))


def absent(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Share of the current side's sum in columns where the reference has nothing."""
    alone = np.where(reference <= _ROUNDING, current, 0).sum(axis=1)
    return _ratio(alone, current.sum(axis=1))


def log_ratio(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Columns: count, time; |log| of the ratio of the rates. Half a count is added, so that 0 has a log."""
    rates = [(side[:, 0] + 0.5) / np.maximum(side[:, 1], _ROUNDING) for side in (reference, current)]
    return np.abs(np.log(rates[1] / rates[0]))


def _shares(side: np.ndarray) -> np.ndarray:
    return _ratio(side, side.sum(axis=1, keepdims=True))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by."""
    return np.divide(
        above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below > _ROUNDING
    )


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> float:
    """0 where nothing weighs."""
    return float(_ratio(values @ weight, weight.sum()))


# Around the tests ------------------------------------------------------------------------------------------


def inflation(series: np.ndarray, length: int) -> float:
    """How much more the mean of `length` consecutive values varies than that of as many random ones; >= 1.

    1 + 2 sum_k (1 - k / length) r_k over the lags before the first autocorrelation r_k below 0 (Geyer 1992).
    """
    centred = series - series.mean()
    total = float(centred @ centred)
    result = 1.0
    if total <= 0:
        return result
    for lag in range(1, min(length, len(series) // 4 + 1)):
        correlation = float(centred[lag:] @ centred[:-lag]) / total
        if correlation <= 0:
            break
        result += 2 * (1 - lag / length) * correlation
    return result


@dataclass(frozen=True)
class Difference:
    """Current mean less the reference's, over users, with the 95 % interval of a joint user bootstrap."""

    reference: float
    current: float
    low: float
    high: float
    p_value: float  # two-sided: twice the smaller share of resamples beyond 0

    @property
    def value(self) -> float:
        return self.current - self.reference


def user_difference(
    reference: tuple[np.ndarray, np.ndarray], current: tuple[np.ndarray, np.ndarray], samples: int, seed: int
) -> Difference:
    """Each side: (points,) user, (points,) value; mean over users of a user's mean, users drawn together.

    A user with points on both sides is drawn for both, so that the difference is paired where it can be.
    """
    users = np.union1d(reference[0], current[0])
    columns = np.zeros((len(users), 4))
    for place, (user, value) in enumerate((reference, current)):
        code = np.searchsorted(users, user)
        counts = np.bincount(code, minlength=len(users))
        columns[:, 2 * place] = _ratio(np.bincount(code, value, minlength=len(users)), counts)
        columns[:, 2 * place + 1] = counts > 0
    drawn = mean_differences(*_as_sides(user_bootstrap(columns, samples, seed)))[:, 0]
    low, high = interval(drawn[:, None])
    p_value = min(1.0, 2 * (1 + min((drawn >= 0).sum(), (drawn <= 0).sum())) / (1 + samples))
    means = [float(_ratio(columns[:, i].sum(), columns[:, i + 1].sum())) for i in (0, 2)]
    return Difference(means[0], means[1], float(low[0]), float(high[0]), float(p_value))


def _as_sides(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return columns[:, :2], columns[:, 2:]
