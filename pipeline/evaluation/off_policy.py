"""What another model would have earned, from a log of what one model showed and what came of it.

Of every row of the log: `reward` (what came of the action shown), `logged` (the probability with which the
logging model showed it), `new` (with which the other would have). Weights are new / logged. Rows of one group
(a user, a list) may depend on each other: their terms are summed before the variance is taken. All functions
work along the last axis; intervals are two-sided normal ones.

snips           self-normalised inverse propensity scoring (Swaminathan & Joachims 2015): sum w r / sum w
doubly_robust   Dudik, Langford & Li 2011: mean of q(x, new) + w (r - q(x, a)), q a model of the reward
difference      of two models on the same rows (Jeunen & Ustimenko, arXiv 2405.10024): mean of
                (w1 - w2) (r - b), whose expectation is free of b; b is the one of least variance
mean_of         terms that somebody else made, e.g. doubly robust ones over several draws

What a log without chance shows (every `logged` is 1) tells nothing of another model.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy.sparse as sp

from pipeline.documents.evaluation import Answer
from pipeline.errors import DataError

LEAST_SAMPLE = 100.0  # effective rows below which nothing is answered
LEAST_EXPLORED = 0.01  # share of rows that chance had a part in
UNBALANCED = 4.0  # standard errors of the mean weight from what it has to be


@dataclass(frozen=True)
class Estimate:
    """Numbers for one log, arrays for several."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    effective: np.ndarray  # sample size: (sum w)^2 / sum w^2, of the worse of two models
    unbalanced: (
        np.ndarray
    )  # standard errors by which weights miss their expectation: an action was never shown


def effective_sample_size(weights: np.ndarray) -> np.ndarray:
    """(..., rows) -> (...): so many rows without weights would say as much (Kish 1965)."""
    squares = (weights**2).sum(axis=-1)
    total: np.ndarray = weights.sum(axis=-1) ** 2
    return np.divide(total, squares, out=np.zeros_like(total), where=squares > 0)


def snips(
    reward: np.ndarray,
    new: np.ndarray,
    logged: np.ndarray,
    group: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """The interval is the delta method's."""
    weights = _weights(new, logged)
    total = weights.sum(axis=-1, keepdims=True)
    value = (weights * reward).sum(axis=-1, keepdims=True) / np.where(total > 0, total, np.nan)
    terms = weights * (reward - value) / np.where(total > 0, total, np.nan)
    return _estimate(value[..., 0], terms, group, level, weights, weights - 1)


def doubly_robust(
    reward: np.ndarray,
    new: np.ndarray,
    logged: np.ndarray,
    predicted: np.ndarray,
    expected: np.ndarray,
    group: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """`predicted`: the reward that a model fitted on other rows predicts of the action shown; `expected`: the
    mean of its predictions over what the new model would show."""
    weights = _weights(new, logged)
    each = expected + weights * (reward - predicted)
    value = each.mean(axis=-1, keepdims=True)
    return _estimate(value[..., 0], (each - value) / each.shape[-1], group, level, weights, weights - 1)


def difference(
    reward: np.ndarray,
    new: np.ndarray,
    old: np.ndarray,
    logged: np.ndarray,
    group: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """By how much the reward of `new` is above that of `old`, paired."""
    one, other = _weights(new, logged), _weights(old, logged)
    apart = one - other
    squares = (apart**2).sum(axis=-1, keepdims=True)
    baseline = np.divide(
        (apart**2 * reward).sum(axis=-1, keepdims=True),
        squares,
        out=np.zeros_like(squares),
        where=squares > 0,
    )
    each = apart * (reward - baseline)
    value = each.mean(axis=-1, keepdims=True)
    terms = (each - value) / each.shape[-1]
    worse = np.where((effective_sample_size(one) < effective_sample_size(other))[..., None], one, other)
    return _estimate(value[..., 0], terms, group, level, worse, apart)


def mean_of(each: np.ndarray, weights: np.ndarray, group: np.ndarray | None = None) -> Estimate:
    """Of (..., rows) terms; `weights`: what the rows stand for, of expectation 1."""
    value = each.mean(axis=-1, keepdims=True)
    return _estimate(value[..., 0], (each - value) / each.shape[-1], group, 0.95, weights, weights - 1)


def answer(found: Estimate, logged: np.ndarray, worthwhile: float = 0.0) -> Answer:
    """Of the `difference` of one log: better where the interval lies above 0; not better where it lies below
    what would be `worthwhile`; else, and where the log cannot tell, look closer: `investigate`."""
    explored = float((logged < 1).mean()) if logged.size else 0.0
    if explored < LEAST_EXPLORED or not found.effective >= LEAST_SAMPLE or not found.unbalanced <= UNBALANCED:
        return "investigate"
    if found.low > 0:
        return "better"
    return "not better" if found.high <= worthwhile else "investigate"


def _weights(new: np.ndarray, logged: np.ndarray) -> np.ndarray:
    if not (np.isfinite(logged).all() and (logged > 0).all() and (logged <= 1).all()):
        raise DataError(
            "off-policy: propensities of what was shown lie above 0 and are at most 1: check the log"
        )
    if not (np.isfinite(new).all() and (new >= 0).all() and (new <= 1).all()):
        raise DataError("off-policy: probabilities of the other model lie from 0 to 1")
    weights: np.ndarray = np.asarray(new, np.float64) / logged
    return weights


def _estimate(
    value: np.ndarray,
    terms: np.ndarray,
    group: np.ndarray | None,
    level: float,
    weights: np.ndarray,
    balance: np.ndarray,
) -> Estimate:
    """`terms`: (..., rows) what each adds to the error; `balance`: (..., rows) of expectation 0."""
    width = NormalDist().inv_cdf(0.5 + level / 2) * _error(terms, group)
    miss = balance.mean(axis=-1, keepdims=True)
    error = _error((balance - miss) / balance.shape[-1], group)
    unbalanced = np.divide(np.abs(miss[..., 0]), error, out=np.zeros_like(error), where=error > 0)
    return Estimate(value, value - width, value + width, effective_sample_size(weights), unbalanced)


def _error(terms: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """(..., rows) -> (...) standard error of their sum; groups are independent of each other."""
    if group is not None:
        _, place = np.unique(group, return_inverse=True)
        gather = sp.csr_matrix((np.ones(len(place)), (np.arange(len(place)), place)))
        terms = np.asarray(terms @ gather)
    count = terms.shape[-1]
    spread: np.ndarray = np.sqrt((terms**2).sum(axis=-1) * count / max(count - 1, 1))
    return spread
