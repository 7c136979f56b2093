"""What the same users took lately: a live nearest-neighbour score by co-occurrence (session-kNN).

A point's history reaches, by each of its newest items, the users who took that item last, and by these what
they took last themselves. An item's score is the sum, over every way that leads to it, of
2^(-place of the shared item / 5) * 2^(-place of the taker / 20) / sqrt(the taker's rows counted), where
places count from 0 at the newest row. Two hops over rows strictly earlier than the moment; nothing is fitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Points

if TYPE_CHECKING:
    from pipeline.models.state import Live

SHARED_HALF_LIFE = 5.0  # rows of the point's history
TAKER_HALF_LIFE = 20.0  # rows of the shared item
CELLS = 1_000_000  # of the largest temporary array


def neighbours(live: Live, points: Points, items: int, last: int, takers: int, own: int) -> sp.csr_matrix:
    """(points, items) float32, each row divided by its largest value.

    Of each point: the newest `last` rows of its history; of each of these items the newest `takers` rows that
    the moment knows, those of the point's own user left out; of each of these users the newest `own` rows
    that the moment knows, the shared item left out. Users of `points` are those of `live.log`.
    """
    size = max(1, CELLS // (last * takers * own))
    parts = [_chunk(live, part, items, last, takers, own) for part in points.chunks(size)]
    return sp.vstack(parts, format="csr") if parts else sp.csr_matrix((0, items), dtype=np.float32)


def _chunk(live: Live, points: Points, items: int, last: int, takers: int, own: int) -> sp.csr_matrix:
    if not len(live.row):
        return sp.csr_matrix((len(points), items), dtype=np.float32)
    tick = live.tick(live.moment(points.time))
    # (points, last) shared rows; (ways to a taker); (ways, own). Only what exists is carried on.
    place = points.stop[:, None] - 1 - np.arange(last)
    point, shared = np.nonzero(place >= points.start[:, None])
    item = points.log.item[place[point, shared]]
    point, shared, item = (array[item >= 0] for array in (point, shared, item))

    stop = live.stop(item, tick[point])
    place = stop[:, None] - 1 - np.arange(takers)
    way, taker = np.nonzero(place >= live.indptr[item][:, None])
    user = live.log.user[live.row[place[way, taker]]]
    other = user != points.user[point[way]]
    way, taker, user = way[other], taker[other], user[other]

    key = user.astype(np.int64) * (len(live.ticks) + 1) + tick[point[way]]
    stop = np.searchsorted(live.user_key, key, side="left")
    place = stop[:, None] - 1 - np.arange(own)
    taken = live.log.item[np.maximum(place, 0)]
    counted = (place >= live.log.indptr[user][:, None]) & (taken != item[way][:, None]) & (taken >= 0)
    rows = counted.sum(axis=1)
    weight = np.exp2(-shared[way] / SHARED_HALF_LIFE - taker / TAKER_HALF_LIFE) / np.sqrt(np.maximum(rows, 1))

    cells = np.bincount(point[way], rows, minlength=len(points)).astype(np.int64)  # ways come point by point
    parts = (np.repeat(weight, rows).astype(np.float32), taken[counted], np.r_[0, np.cumsum(cells)])
    scores = sp.csr_matrix(parts, shape=(len(points), items))
    scores.sum_duplicates()
    largest = scores.max(axis=1).toarray().ravel() if scores.nnz else np.ones(len(points))
    scores.data /= np.repeat(largest, np.diff(scores.indptr))
    return scores
