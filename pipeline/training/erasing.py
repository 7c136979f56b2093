"""`finetune.erase`: a group of users is taken out of the text vectors, and how well that holds is measured.

In: the prepared data, item vectors. Out: the erasure (pipeline/models/erasure.py), and how well the group
that is guessed best is guessed before and after. Of users that the fit left out: half of them is fitted on,
the other half guessed by a cross-fitted logistic regression, and the other way round.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.data.histories import TRAIN, Prepared
from pipeline.errors import ConfigError
from pipeline.models.erasure import Erasure
from pipeline.models.guessing import area
from pipeline.models.text import unit

LEAST_USERS, MOST_GROUPS = 40, 30  # a quarter of the users of a group is the least that a guess is tested on


def erasure(
    vectors: np.ndarray, prepared: Prepared, column: str, seed: int
) -> tuple[Erasure, dict[str, float]]:
    """Of (items, width) vectors; what the summary says of it. Raises ConfigError if `column` has none."""
    known, groups = _groups(prepared, column)
    users = _means(vectors, prepared)[known]
    before, after = tested(users, groups, seed)
    return Erasure.fit(users, groups), {"auc_before": round(before, 4), "auc_after": round(after, 4)}


def tested(users: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """AUC (before, after) of the group of (users, groups) bool that is guessed best from (users, width)."""
    half = np.random.default_rng(seed).permutation(len(users)) % 2 == 0
    found = []
    for fitted in (half, ~half):
        erased = Erasure.fit(users[fitted], groups[fitted])(users[~fitted])
        sides = unit(users[~fitted]), unit(erased)
        found.append([[area(side, mine[~fitted], seed) for side in sides] for mine in groups.T])
    each = np.mean(found, axis=0)  # (groups, 2)
    before, after = each[each[:, 0].argmax()]
    return float(before), float(after)


def _groups(prepared: Prepared, column: str) -> tuple[np.ndarray, np.ndarray]:
    """((users,) bool that is in a group, (those users, groups) bool)."""
    where = f"params.yaml: finetune.erase: {column}"
    table = prepared.users
    if table is None or column not in table or column == tables.USER:
        has = "there is no table of users" if table is None else f"it has {', '.join(table.columns[1:])}"
        raise ConfigError(f"{where}: no such column of users ({has}): name another, or null")
    values = table.set_index(tables.USER)[column].reindex(pd.Index(prepared.user_ids))
    counts = values.value_counts()
    groups = counts.index[counts >= LEAST_USERS]
    if not 2 <= len(counts) <= MOST_GROUPS or not len(groups):
        raise ConfigError(
            f"{where}: {len(counts)} values, {len(groups)} of at least {LEAST_USERS} users: name a column "
            f"of 2 to {MOST_GROUPS} groups"
        )
    known = values.notna().to_numpy()
    return known, np.stack([(values == group).to_numpy()[known] for group in groups], axis=1)


def _means(vectors: np.ndarray, prepared: Prepared) -> np.ndarray:
    """(users, width) mean vector of the items of each user's rows of train, those without text left out."""
    log = prepared.log
    there = np.asarray(vectors.any(axis=1))
    kept = (log.window == TRAIN) & there[log.item]
    shape = (len(prepared.user_ids), len(vectors))
    rows = sp.csr_matrix((np.ones(kept.sum()), (log.user[kept], log.item[kept])), shape=shape)
    counts = np.maximum(np.asarray(rows.sum(axis=1)).ravel(), 1)
    found: np.ndarray = (rows @ vectors) / counts[:, None]
    return found
