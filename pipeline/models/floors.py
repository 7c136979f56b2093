"""Re-ranking with exposure floors: each list gives a group of items at least a share of its attention.

Attention of rank r is 1 / log2(1 + r), as in the exposure of Singh & Joachims 2018. From the top, each place
gets the best item that is left, until the attention of the places behind it would no longer do for what the
groups lack: then the best item of a group that lacks some. So floors are kept wherever the candidates have
enough of the group, at the cost of the lowest places first. An item of several categories counts to each with
its part, so that there less than a floor may come of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from pipeline.data.item_groups import Grouping
from pipeline.errors import ConfigError

POOL = 200  # candidates of a list, the best
Floors = Mapping[str, Mapping[str, float]]  # grouping -> group -> share of attention


def members(floors: Floors, groupings: Mapping[str, Grouping]) -> tuple[np.ndarray, np.ndarray]:
    """((items + 1, groups) share of each item in each group with a floor, (groups,) floors).

    Raises ConfigError for a group that the items do not have, naming those that they have.
    """
    columns, least = [], []
    for by, of in floors.items():
        if by not in groupings:
            raise _unknown(by, groupings)
        for name, share in of.items():
            if name not in groupings[by].names:
                raise _unknown(f"{by}.{name}", groupings[by].names)
            columns.append(groupings[by].shares[:, [groupings[by].names.index(name)]])
            least.append(share)
    if sum(least) > 1:
        raise ConfigError(f"recommend.exposure_floors: together {sum(least):g} of a list: leave at most 1")
    return sp.hstack(columns).toarray(), np.array(least)


def _unknown(name: str, known: Sequence[str] | Mapping[str, Grouping]) -> ConfigError:
    return ConfigError(f"recommend.exposure_floors.{name}: no such group of items: {', '.join(known)}")


def reranked(listed: np.ndarray, shares: np.ndarray, floors: np.ndarray, k: int) -> np.ndarray:
    """(points, pool) items best first, -1 behind -> (points, k) places in the pool, -1 for no item.

    `shares`, `floors`: as `members` gives them.
    """
    attention = 1 / np.log2(2 + np.arange(k))
    behind = attention.sum() - np.cumsum(attention)  # of the places after each
    part = shares[listed]  # (points, pool, groups)
    left = listed >= 0
    lacking = np.broadcast_to(floors * attention.sum(), (len(listed), len(floors))).copy()
    chosen = np.full((len(listed), k), -1)
    rows = np.arange(len(listed))
    for place in range(min(k, listed.shape[1])):
        short = np.maximum(lacking, 0)
        serves = left & ((part > 0) & (short > 1e-9)[:, None, :]).any(axis=2)
        # What a group gets beyond its floor, less than a place's attention, is lost to the other groups.
        lost = np.maximum((short > 1e-9).sum(axis=1) - 1, 0) * attention[place]
        forced = (short.sum(axis=1) + lost > behind[place] + 1e-9) & serves.any(axis=1)
        open_to = np.where(forced[:, None], serves, left)
        best = open_to.argmax(axis=1)  # the first: lists are best first
        there = open_to[rows, best]
        chosen[there, place] = best[there]
        left[rows[there], best[there]] = False
        lacking[there] -= attention[place] * part[rows[there], best[there]]
    return chosen


def below(listed: np.ndarray, shares: np.ndarray, floors: np.ndarray) -> int:
    """How many lists (points, k) of item indices give a group less attention than its floor."""
    attention = (listed >= 0) / np.log2(2 + np.arange(listed.shape[1]))
    given = np.einsum("pk,pkg->pg", attention, shares[listed])
    short = given < floors * attention.sum(axis=1, keepdims=True) - 1e-9
    return int(short.any(axis=1).sum())


def picked(values: np.ndarray, places: np.ndarray, nothing: float) -> np.ndarray:
    """(points, pool) values at (points, k) places; `nothing` where the place is -1."""
    found = np.take_along_axis(values, np.maximum(places, 0), axis=1)
    return np.where(places >= 0, found, nothing).astype(values.dtype)
