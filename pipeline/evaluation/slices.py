"""Kinds of points: masks by which figures are told apart.

cold_items - target never in train; cold_users - user never in train; warm - neither; empty_history - nothing
known of the user at that moment; repeats, first_time (where preprocess.repeats includes them) - whether the
target is in the user's history; group:COLUMN=VALUE - so says the table of users.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import TRAIN, Log, Points

COLD_ITEMS = "cold_items"
GROUP = "group:"  # begins the names of slices of users
GROUP_VALUES = range(2, 31)  # values of a column whose users are slices
GROUP_USERS = 20  # least test users of such a slice
BUCKETS = {"0": 0, "1-4": 1, "5-19": 5, "20-99": 20, "100+": 100}  # history length: from
NEW = "new"


def user_groups(users: pd.DataFrame | None, user_ids: np.ndarray, points: Points) -> dict[str, np.ndarray]:
    """`group:COLUMN=VALUE` -> (users,) mask, from a table with user_id and any further columns.

    Of columns with as many values as GROUP_VALUES among the points' users; of values, those of at least
    GROUP_USERS of them. Empty cells are in no group.
    """
    if users is None:
        return {}
    table = users.set_index(tables.USER).reindex(pd.Index(user_ids))
    asked = np.unique(points.user[points.user >= 0])
    found = {}
    for column in table.columns:
        values = table[column]
        known = values.iloc[asked].dropna()
        if not known.map(lambda value: isinstance(value, str | int | float | bool | np.generic)).all():
            continue  # lists and the like
        if known.nunique() not in GROUP_VALUES:
            continue
        for value, count in known.value_counts().sort_index().items():
            if count >= GROUP_USERS:
                # A gap among whole numbers makes them floats: 1.0 is written as 1.
                text = f"{value:g}" if isinstance(value, float) else value
                found[f"{GROUP}{column}={text}"] = (values == value).fillna(False).to_numpy(dtype=bool)
    return found


def slices(points: Points, groups: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Name -> (points,) mask."""
    log = points.log
    known_items, known_users = _in_train(log, log.item), _in_train(log, log.user)
    cold_item = ~np.isin(points.target, known_items)
    cold_user = ~np.isin(points.user, known_users)
    return {
        "all": np.ones(len(points), bool),
        "warm": ~cold_item & ~cold_user,
        COLD_ITEMS: cold_item,
        "cold_users": cold_user,
        "empty_history": points.lengths == 0,
        **_by_repeat(points),
        **{name: (points.user >= 0) & users[points.user] for name, users in (groups or {}).items()},
    }


def _by_repeat(points: Points) -> dict[str, np.ndarray]:
    if not points.log.repeats:
        return {}
    point, row = points.rows()
    repeat = np.zeros(len(points), bool)
    repeat[point[points.log.item[row] == points.target[point]]] = True
    return {"repeats": repeat, "first_time": ~repeat}


def _in_train(log: Log, column: np.ndarray) -> np.ndarray:
    return np.unique(column[log.window == TRAIN])


def by_history_length(points: Points) -> dict[str, np.ndarray]:
    """Bucket -> (points,) mask, by rows in the history at the point."""
    bucket = np.searchsorted(list(BUCKETS.values()), points.lengths, side="right") - 1
    return {name: bucket == number for number, name in enumerate(BUCKETS)}


def by_popularity_decile(points: Points, order: np.ndarray) -> dict[str | int, np.ndarray]:
    """Decile -> (points,) mask: tenths of the items met in train by popularity, 10 the most popular.

    Targets never in train are under `new`.
    """
    known = _in_train(points.log, points.log.item)
    decile = np.zeros(len(order), np.int64)  # 0: new
    decile[known[np.argsort(-order[known])]] = 1 + 10 * np.arange(len(known)) // max(len(known), 1)
    found = decile[points.target]
    return {NEW if number == 0 else number: found == number for number in range(11)}
