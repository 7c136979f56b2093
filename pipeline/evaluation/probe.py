"""How well can a group of users be guessed from what their lists hold?

A logistic regression on a user's lists (items by the attention that they get, of unit length) is asked
of users whom its fit left out: five folds, stratified. AUC: the chance that a user of the group is guessed
before one of the others, 0.5 by chance; scores of different folds are compared by their place in the fold.
Interval: Hanley & McNeil 1982, eq. 1 and 2; it covers who was tested, not another fit. Beside it the same
from what the user took before, which lists have to follow: only above it do they tell more. p: of an AUC that
is no more than chance, adjusted for the number of groups (Holm).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Points
from pipeline.evaluation import metrics
from pipeline.evaluation.fairness import ATTENTION, user_masks
from pipeline.models.guessing import area

if TYPE_CHECKING:
    from pipeline.evaluation.figures import Question

MOST_USERS = 5_000  # a random choice of more


def guessed(question: Question, listed: np.ndarray) -> list[dict[str, Any]]:
    """A row a group of users: AUC from lists and from histories, with how many users are of the group."""
    people = np.unique(question.points.user)
    generator = np.random.default_rng(question.seed)
    if len(people) > MOST_USERS:
        people = np.sort(generator.choice(people, MOST_USERS, replace=False))
    if not (sides := user_masks(question, people)):
        return []
    asked, items = np.isin(question.points.user, people), len(question.catalogue)
    lists = contents(question.points[asked], listed[asked], items)
    taken = histories(question.points[asked], items)
    rows: list[dict[str, Any]] = []
    for name, mine in sides:
        auc, low, high = _area(lists, mine, question.seed)
        before = area(taken, mine, question.seed) if taken.nnz else np.nan
        count = int(mine.sum())
        rows.append({"group": name, "users": count, "auc": auc, "low": low, "high": high})
        rows[-1] |= {"base_rate": count / len(mine), "histories": before}
        rows[-1]["p"] = NormalDist().cdf((0.5 - auc) / chance_error(count, len(mine) - count))
    adjusted = metrics.holm({row["group"]: row["p"] for row in rows})
    return [row | {"p": adjusted[row["group"]]} for row in rows]


def contents(points: Points, listed: np.ndarray, items: int) -> sp.csr_matrix:
    """(users, items) attention that each item has in the user's lists; rows of unit length."""
    _, user = np.unique(points.user, return_inverse=True)
    point, place = np.nonzero(listed[:, : len(ATTENTION)] >= 0)
    cells = (ATTENTION[place], (user[point], listed[point, place]))
    return _unit(sp.csr_matrix(cells, shape=(user.max() + 1, items)))


def histories(points: Points, items: int) -> sp.csr_matrix:
    """(users, items) what users had before their last point; rows of unit length."""
    order = np.lexsort((points.time, points.user))
    last = np.r_[np.diff(points.user[order]) != 0, True] if len(order) else np.zeros(0, bool)
    newest = points[order[last]]
    user, row = newest.rows()
    item = newest.log.item[row]
    return _unit(sp.csr_matrix((np.ones(len(item)), (user, item)), shape=(len(newest), items)))


def _area(features: sp.csr_matrix, mine: np.ndarray, seed: int) -> tuple[float, float, float]:
    """(AUC, low, high) of guessing `mine` (users,) from features (users, columns)."""
    auc = area(features, mine, seed)
    width = NormalDist().inv_cdf(0.975) * area_error(auc, int(mine.sum()), int((~mine).sum()))
    return auc, max(auc - width, 0.0), min(auc + width, 1.0)


def area_error(auc: float, ours: int, theirs: int) -> float:
    """Standard error of an AUC (Hanley & McNeil 1982)."""
    both, either = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (ours - 1) * (both - auc**2) + (theirs - 1) * (either - auc**2)
    return float(np.sqrt(max(spread, 0.0) / (ours * theirs)))


def chance_error(ours: int, theirs: int) -> float:
    """The same of an AUC that is 0.5 by nature (Mann & Whitney 1947)."""
    return float(np.sqrt((ours + theirs + 1) / (12 * ours * theirs)))


def _unit(matrix: sp.csr_matrix) -> sp.csr_matrix:
    from sklearn.preprocessing import normalize

    return normalize(matrix)
