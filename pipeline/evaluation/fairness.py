"""Are users of a group served worse, are items of a group shown less than taken, do lists fit their users?

In: what was asked, each model's lists and its figures at the points. Out: plain dictionaries as in
pipeline/documents/fairness.py; NaN where nothing was measured. Every user counts alike, its points averaged.

users       - nDCG@10 of a group (pipeline/evaluation/slices.py) less that of everybody else: two means,
              Welch's t, p of two sides.
exposure    - attention-weighted rank fairness (Sapiezynski et al. 2019; Raj & Ekstrand 2022), of all lists
              together, against what was taken (Singh & Joachims 2018, exposure in proportion to relevance):
              AWRF = 1 - 1/2 sum_g |E_g - R_g|,  E_g = sum_r v_r [item at rank r is of g] / sum_r v_r,
              v_r = 1 / log2(1 + r), R_g the share of group g among what users took at the points. 1: each
              group of items has the attention that it has of the successes; total variation as the distance.
calibration - C_KL = sum_g p(g|u) log(p(g|u) / q~(g|u)), q~ = .99 q + .01 p (Steck 2018, eq. 3 and 6): p the
              mix of categories of the user's successes before the point (LEAST_HISTORY or more), q that of
              the list, its ranks weighted by v_r. 0: the list has the user's own mix.

`compare` asks whether the challenger is less fair than the champion. Rows, each with what is `lost` and its
one-sided p, adjusted for the number of all rows (Holm):
  users: by how much (challenger - champion) of a group is below that of everybody else. A user counts as the
  square root of its points, as in the rest of the comparison; share: of the champion's figure on the group.
  exposure: by how much AWRF falls; share: the same.
  calibration: by how much C_KL rises; share: of the champion's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy import special

from pipeline.data import tables
from pipeline.data.item_groups import Grouping
from pipeline.evaluation import metrics
from pipeline.evaluation.slices import GROUP, GROUP_USERS

if TYPE_CHECKING:
    from pipeline.data.histories import Points
    from pipeline.evaluation.figures import Question

DEPTH = 10  # of the lists
ATTENTION = 1 / np.log2(1 + np.arange(1, DEPTH + 1))
LEAST_HISTORY = 5  # successes with a category, for a mix of one's own
SMOOTHING = 0.01  # Steck's alpha
POINTS_AT_ONCE = 10_000

Figures = dict[str, Any]


def fairness(
    question: Question,
    listed: Mapping[str, np.ndarray],
    ndcg: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> Figures:
    """Of the models `names`, the first of which the groups of users are told of, worst group first."""
    user, own = question.points.user, question.groupings.get(tables.CATEGORIES)
    kl = {name: calibration(question.points, listed[name], own) for name in names}
    settings = question.samples, question.seed
    return {
        "users": _quality(question, ndcg[names[0]], kl[names[0]]),
        "exposure": {
            name: _exposure(question, grouping, {one: listed[one] for one in names})
            for name, grouping in question.groupings.items()
        },
        "calibration": {
            name: _mean(values, user, *settings) for name, values in kl.items() if np.isfinite(values).any()
        },
    }


def compare(
    question: Question, challenger: np.ndarray, champion: np.ndarray, gain: np.ndarray, base: np.ndarray
) -> list[Figures]:
    """Both models' lists; `gain`: (points,) challenger - champion in nDCG@10, `base`: the champion's."""
    own = question.groupings.get(tables.CATEGORIES)
    rows = [*_behind(question, gain, base), *_shown_less(question, challenger, champion)]
    if own is not None:
        rows += _less_their_own(question, own, challenger, champion)
    rows = [row for row in rows if np.isfinite(row["p"])]
    adjusted = metrics.holm({str(place): row["p"] for place, row in enumerate(rows)})
    return [row | {"p": adjusted[str(place)]} for place, row in enumerate(rows)]


# Groups of users --------------------------------------------------------------------------------------------


def _quality(question: Question, ndcg: np.ndarray, kl: np.ndarray) -> list[Figures]:
    """A row a group, the worst first; p adjusted for their number (Holm)."""
    user = question.points.user
    people, mean = np.unique(user), metrics.group_means(ndcg, user)
    rows, alike = [], np.ones(len(people))
    for name, mine in user_masks(question, people):
        gap, error, freedom = apart(mean, alike, mine)
        width = _quantile(freedom) * error
        here = mine[np.searchsorted(people, user)]
        rows.append(
            {
                "group": name,
                "users": int(mine.sum()),
                "points": int(here.sum()),
                "ndcg@10": mean[mine].mean(),
                "gap": gap,
                "low": gap - width,
                "high": gap + width,
                "p": 2 * _tail(abs(gap), error, freedom),
                "calibration": metrics.mean_of_users(kl[here], user[here]),
            }
        )
    adjusted = metrics.holm({row["group"]: row["p"] for row in rows})
    rows = [row | {"p": adjusted[row["group"]]} for row in rows]
    return sorted(rows, key=lambda row: row["ndcg@10"])


def _behind(question: Question, gain: np.ndarray, base: np.ndarray) -> list[Figures]:
    user = question.points.user
    people, points = np.unique(user, return_counts=True)
    weight, means = np.sqrt(points), metrics.group_means(np.stack([gain, base], axis=1), user)
    rows = []
    for name, mine in user_masks(question, people):
        gap, error, freedom = apart(means[:, 0], weight, mine)
        ours, theirs = np.average(means[mine], weights=weight[mine], axis=0)
        width = _quantile(freedom) * error
        rows.append(
            {
                "kind": "users",
                "name": name,
                "users": int(mine.sum()),
                "challenger": ours + theirs,
                "champion": theirs,
                "lost": -gap,
                "low": -gap - width,
                "high": -gap + width,
                "share": _ratio(-gap, theirs),
                "p": _tail(-gap, error, freedom),
            }
        )
    return rows


def user_masks(question: Question, people: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(name, (people,) mask) of the groups with GROUP_USERS on either side."""
    found = [
        (name.removeprefix(GROUP), (people >= 0) & mask[people]) for name, mask in question.groups.items()
    ]
    return [(name, mine) for name, mine in found if min(mine.sum(), (~mine).sum()) >= GROUP_USERS]


def apart(values: np.ndarray, weight: np.ndarray, mine: np.ndarray) -> tuple[float, float, float]:
    """(mean of `mine` less that of the rest, standard error, degrees of freedom): Welch 1947, weighted.

    With weights, a side counts as (sum w)^2 / sum w^2 values (Kish 1965).
    """
    means, variances, sizes = np.zeros(2), np.zeros(2), np.zeros(2)
    for place, side in enumerate((mine, ~mine)):
        share = weight[side] / weight[side].sum()
        sizes[place] = 1 / (share**2).sum()
        means[place] = share @ values[side]
        spread = share**2 @ (values[side] - means[place]) ** 2
        variances[place] = spread * sizes[place] / max(sizes[place] - 1, 1)
    total = variances.sum()
    freedom = total**2 / (variances**2 / np.maximum(sizes - 1, 1)).sum() if total > 0 else np.inf
    return float(means[0] - means[1]), float(np.sqrt(total)), float(freedom)


def _tail(value: float, error: float, freedom: float = np.inf) -> float:
    """One-sided p of a value whose expectation is 0, by Student's t; by the normal without `freedom`."""
    if not error > 0:
        return 1.0 if value <= 0 else 0.0
    ratio = -value / error
    return float(special.ndtr(ratio) if np.isinf(freedom) else special.stdtr(freedom, ratio))


def _quantile(freedom: float) -> float:
    share = metrics.HIGH / 100
    return float(special.ndtri(share) if np.isinf(freedom) else special.stdtrit(freedom, share))


# Groups of items --------------------------------------------------------------------------------------------


def _exposure(question: Question, grouping: Grouping, listed: Mapping[str, np.ndarray]) -> Figures:
    shown, taken, user = _attention(question, grouping, listed)
    means = metrics.group_means(np.hstack([taken, *shown.values()]), user)
    drawn = metrics.user_bootstrap(means, question.samples, question.seed)
    sides, redrawn = _sides(means.mean(axis=0)[None], len(shown)), _sides(drawn, len(shown))
    found = {}
    for name, exposure, samples in zip(shown, sides[1:], redrawn[1:], strict=True):
        low, high = metrics.interval(awrf(samples, redrawn[0])[:, None])
        found[name] = {"value": awrf(exposure, sides[0])[0], "low": low[0], "high": high[0]}
    items = np.asarray(grouping.shares.sum(axis=0)).ravel()
    groups = [
        {
            "group": name,
            "items": items[place] / max(items.sum(), 1),
            "relevance": sides[0][0, place],
            "exposure": {one: side[0, place] for one, side in zip(shown, sides[1:], strict=True)},
        }
        for place, name in enumerate(grouping.names)
    ]
    return {"awrf": found, "groups": groups}


def awrf(exposure: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """(..., groups) shares of each -> (...) from 0 to 1, equal shares."""
    result: np.ndarray = 1 - np.abs(exposure - relevance).sum(axis=-1) / 2
    return result


def _attention(
    question: Question, grouping: Grouping, listed: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(model -> (points, groups) shares of attention, the same of what was taken, user) of points that have
    all of them."""
    shown = {name: grouping.exposure(lists, ATTENTION) for name, lists in listed.items()}
    taken = grouping.exposure(question.points.target[:, None], ATTENTION[:1])
    known = np.all([np.isfinite(values[:, 0]) for values in (taken, *shown.values())], axis=0)
    kept = {name: values[known] for name, values in shown.items()}
    return kept, taken[known], question.points.user[known]


def _sides(means: np.ndarray, models: int) -> list[np.ndarray]:
    """(draws, (1 + models) * groups) -> what was taken, then each model: (draws, groups) that sum to 1."""
    parts = np.split(means, 1 + models, axis=1)
    with np.errstate(invalid="ignore"):
        return [part / part.sum(axis=1, keepdims=True) for part in parts]


def _shown_less(question: Question, challenger: np.ndarray, champion: np.ndarray) -> list[Figures]:
    rows = []
    for name, grouping in question.groupings.items():
        shown, taken, user = _attention(question, grouping, {"ours": challenger, "theirs": champion})
        means = metrics.group_means(np.hstack([taken, *shown.values()]), user)
        relevance, ours, theirs = _sides(means.mean(axis=0)[None], 2)
        drawn = _sides(metrics.user_bootstrap(means, question.samples, question.seed), 2)
        fairer, before = awrf(ours, relevance)[0], awrf(theirs, relevance)[0]
        lost = awrf(drawn[2], drawn[0]) - awrf(drawn[1], drawn[0])
        low, high = metrics.interval(lost[:, None])
        rows.append(
            {
                "kind": "exposure",
                "name": name,
                "users": len(means),
                "challenger": fairer,
                "champion": before,
                "lost": before - fairer,
                "low": low[0],
                "high": high[0],
                "share": before - fairer,
                "p": _tail(before - fairer, float(lost.std())),
            }
        )
    return rows


# A user's own mix -------------------------------------------------------------------------------------------


def calibration(points: Points, listed: np.ndarray, grouping: Grouping | None) -> np.ndarray:
    """(points,) C_KL; NaN where the history is too short for a mix, or the list has no category."""
    if grouping is None:
        return np.full(len(points), np.nan)
    parts = [np.zeros(0)]
    for begin in range(0, len(points), POINTS_AT_ONCE):
        rows = slice(begin, begin + POINTS_AT_ONCE)
        mix, shown = _own_mix(points[rows], grouping), grouping.exposure(listed[rows], ATTENTION)
        blurred = (1 - SMOOTHING) * shown + SMOOTHING * mix
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(mix > 0, mix * np.log(mix / blurred), 0.0)
        parts.append(np.where(np.isfinite(mix[:, 0] + shown[:, 0]), terms.sum(axis=1), np.nan))
    return np.concatenate(parts)


def _own_mix(points: Points, grouping: Grouping) -> np.ndarray:
    """(points, groups) shares among the successes before the point; NaN where they are too few."""
    point, row = points.rows()
    liked = points.log.positive[row]
    point, item = point[liked], points.log.item[row[liked]]
    rows = sp.csr_matrix((np.ones(len(item)), (point, item)), (len(points), grouping.shares.shape[0]))
    mix = (rows @ grouping.shares).toarray()
    total = mix.sum(axis=1, keepdims=True)
    return np.divide(mix, total, out=np.full_like(mix, np.nan), where=total >= LEAST_HISTORY - 1e-9)


def _less_their_own(
    question: Question, own: Grouping, challenger: np.ndarray, champion: np.ndarray
) -> list[Figures]:
    ours, theirs = (calibration(question.points, lists, own) for lists in (challenger, champion))
    known = np.isfinite(ours + theirs)
    if not known.any():
        return []
    user = question.points.user[known]
    means = metrics.group_means(np.stack([ours[known], theirs[known]], axis=1), user)
    apart_by = means[:, 0] - means[:, 1]
    lost, count = float(apart_by.mean()), len(means)
    error = float(apart_by.std(ddof=1) / np.sqrt(count)) if count > 1 else np.nan
    width = _quantile(max(count - 1, 1)) * error
    return [
        {
            "kind": "calibration",
            "name": tables.CATEGORIES,
            "users": count,
            "challenger": means[:, 0].mean(),
            "champion": means[:, 1].mean(),
            "lost": lost,
            "low": lost - width,
            "high": lost + width,
            "share": _ratio(lost, float(means[:, 1].mean())),
            "p": _tail(lost, error, count - 1) if count > 1 else np.nan,
        }
    ]


def _mean(values: np.ndarray, user: np.ndarray, samples: int, seed: int) -> Figures:
    """Mean of users with its 95 % interval, of the points that have a value."""
    known = np.isfinite(values)
    means = metrics.group_means(values[known], user[known])
    low, high = metrics.interval(metrics.user_bootstrap(means[:, None], samples, seed))
    return {"value": means.mean(), "low": low[0], "high": high[0], "users": len(means)}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else np.inf if part > 0 else 0.0
