"""What goes with the newest items of a history, counted live: sequential rules over the newest takers.

A point's history reaches, by each of its newest items, the users who took that item last, and by these what
they took around it. An item's score is the sum, over every way that leads to it, of
2^(-place of the shared item / 5) * 2^(-place of the taker / 50) / d, where d is how many rows of the taker
lie between (halved for what came before the shared item) and places count from 0 at the newest row. Rows
strictly earlier than the moment; nothing is fitted. Rules: Ludewig and Jannach, "Evaluation of session-based
recommendation algorithms", 2018 (SR); here of the newest takers alone, and in both directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Points

if TYPE_CHECKING:
    from pipeline.models.state import Live

SHARED, TAKERS = 10, 60  # newest rows: of the point's history, of a shared item
AROUND = 10  # rows of a taker on each side of the shared item
HELD = 100  # a taker's newest rows, among which all of this is looked for
SHARED_HALF_LIFE = 5.0  # rows of the point's history
TAKER_HALF_LIFE = 50.0  # rows of the shared item
BEFORE = 0.5  # what a row before the shared item counts, against one behind it
CELLS = 1_000_000  # of the largest temporary array


def offsets(around: int = AROUND) -> tuple[np.ndarray, np.ndarray]:
    """(places relative to the shared item, what each counts)."""
    step = np.r_[np.arange(-around, 0), np.arange(1, around + 1)]
    return step, np.where(step > 0, 1.0, BEFORE) / np.abs(step)


def neighbours(live: Live, points: Points, items: int, last: int, takers: int, around: int) -> sp.csr_matrix:
    """(points, items) float32, each row divided by its largest value.

    Of each point: the newest `last` rows of its history; of each of these items the newest `takers` rows that
    the moment knows, those of the point's own user left out; of each of these users the rows at most `around`
    from the shared one, among the newest HELD that the moment knows. Users of `points` are those of
    `live.log`.
    """
    size = max(1, CELLS // (2 * last * takers * around))
    parts = [_chunk(live, part, items, last, takers, around) for part in points.chunks(size)]
    return sp.vstack(parts, format="csr") if parts else sp.csr_matrix((0, items), dtype=np.float32)


def _chunk(live: Live, points: Points, items: int, last: int, takers: int, around: int) -> sp.csr_matrix:
    if not len(live.row):
        return sp.csr_matrix((len(points), items), dtype=np.float32)
    tick = live.tick(live.moment(points.time))
    # (points, last) shared rows; (ways to a taker); (ways, around). Only what exists is carried on.
    place = points.stop[:, None] - 1 - np.arange(last)
    point, shared = np.nonzero(place >= points.start[:, None])
    item = points.log.item[place[point, shared]]
    point, shared, item = (array[item >= 0] for array in (point, shared, item))

    stop = live.stop(item, tick[point])
    place = stop[:, None] - 1 - np.arange(takers)
    way, taker = np.nonzero(place >= live.indptr[item][:, None])
    row = live.row[place[way, taker]]
    user = live.log.user[row]
    other = user != points.user[point[way]]
    way, taker, user, row = way[other], taker[other], user[other], row[other]

    key = user.astype(np.int64) * (len(live.ticks) + 1) + tick[point[way]]
    stop = np.searchsorted(live.user_key, key, side="left")
    start = np.maximum(live.log.indptr[user], stop - HELD)
    step, counts = offsets(around)
    place = row[:, None] + step
    taken = live.log.item[np.clip(place, 0, len(live.log) - 1)]
    counted = (place >= start[:, None]) & (place < stop[:, None]) & (row >= start)[:, None]
    counted &= (taken != item[way][:, None]) & (taken >= 0)
    weight = np.exp2(-shared[way] / SHARED_HALF_LIFE - taker / TAKER_HALF_LIFE)[:, None] * counts

    cells = np.bincount(point[way], counted.sum(axis=1), minlength=len(points))  # ways come point by point
    parts = (weight[counted].astype(np.float32), taken[counted], np.r_[0, np.cumsum(cells.astype(np.int64))])
    scores = sp.csr_matrix(parts, shape=(len(points), items))
    scores.sum_duplicates()
    largest = scores.max(axis=1).toarray().ravel() if scores.nnz else np.ones(len(points))
    scores.data /= np.repeat(largest, np.diff(scores.indptr))
    return scores
