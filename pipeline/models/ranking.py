"""From scores to ranked lists: the same rules for every model.

In: of a `Scorer` (points, items) float32 scores over the catalogue, NaN or -inf where it cannot score; of a
`Lister` the items of each point that it would list, with their scores.
Out: (points, k) item indices, best first. Listed are the items available at the point's time and not in the
user's strict history (with `preprocess.repeats: include` also those): first the scored ones, then the rest,
in both ties by the frozen popularity order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from pipeline.data.histories import Catalogue, Points
from pipeline.models.baselines import Scorer
from pipeline.models.pairs import GROUP, excluded_matrix, lookup, maxima

SALT = "evergreen.ranking"
FILL = 1024  # items at a time, where candidates are too few for a list
CELLS = 4_000_000  # at once, 16 MB: from 32 MB on every array comes from the system anew, page by page


@runtime_checkable
class Lister(Protocol):
    """A model that names candidates instead of scoring the whole catalogue."""

    @property
    def name(self) -> str: ...

    def candidates(self, points: Points) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of chunks of points, in order: (points, n) int32 items, -1 for none; float32 scores, -inf there."""
        ...


Model = Scorer | Lister


def popularity_order(popularity: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """(items,) int32 place of each item, 0 the most popular; ties by a fixed-salt md5 of the id."""
    digests = b"".join(hashlib.md5(f"{SALT}|{item}".encode()).digest() for item in item_ids)
    high, low = np.frombuffer(digests, ">u8").reshape(-1, 2).T.astype(np.uint64)
    place = np.empty(len(popularity), np.int32)
    place[np.lexsort((low, high, -popularity))] = np.arange(len(popularity), dtype=np.int32)
    return place


def top_k(
    scores: np.ndarray, points: Points, catalogue: Catalogue, order: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """((points, k) int32 item indices, (points, k) float32 scores): min(k, candidates) of each point.

    `order` is popularity_order's place of each item. Places without an item hold -1 and NaN; an item that
    was not scored has a NaN score. Needs 8 bytes a cell: see rank_points for chunks.
    """
    listed = np.full((len(points), k), -1, np.int32)
    found = np.full((len(points), k), np.nan, np.float32)
    if not k or not len(catalogue):
        return listed, found
    scored = np.fmax(np.asarray(scores, np.float32), np.float32(-np.inf))  # a copy, -inf for NaN
    _exclude(scored, points, catalogue)
    row, item = _reaching(scored, order, k)
    value = scored[row, item]
    short = np.flatnonzero(np.bincount(row, minlength=len(points)) < k)
    if len(short):  # the rest of their lists by popularity
        rest = np.where(scores[short] > -np.inf, -np.inf, -order.astype(np.float32))
        _exclude(rest, points[short], catalogue)
        of_short, of_rest = _reaching(rest, order, k)
        row, item = np.append(row, short[of_short]), np.append(item, of_rest)
        value = np.append(value, np.full(len(of_rest), np.nan, np.float32))
    best = np.lexsort((order[item], -value, row))  # a NaN sorts behind every number
    row, item, value = row[best], item[best], value[best]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    first = place < k
    listed[row[first], place[first]], found[row[first], place[first]] = item[first], value[first]
    return listed, found


def _reaching(scores: np.ndarray, order: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns), row by row, of the n best cells of each row and some more; never one of -inf."""
    size = max(1, min(GROUP, scores.shape[1] // (4 * n)))
    groups = scores.shape[1] // size
    least = np.full((len(scores), 1), np.finfo(np.float32).min, np.float32)
    if groups > n:
        # The n-th greatest of the groups' greatest is not above the n-th greatest of all.
        greatest = np.partition(maxima(scores, size), groups - n, axis=1)[:, groups - n, None]
        least = np.maximum(least, greatest)
    row, column = np.divmod(np.flatnonzero(scores >= least), scores.shape[1])
    ends = np.searchsorted(row, np.arange(len(scores) + 1))
    kept = np.ones(len(row), bool)
    for crowded in np.flatnonzero(np.diff(ends) > 4 * n):  # many are equal
        span = slice(*ends[crowded : crowded + 2])
        kept[span] = _first(scores[crowded, column[span]], order[column[span]], n)
    return row[kept], column[kept]


def _first(scores: np.ndarray, order: np.ndarray, n: int) -> np.ndarray:
    """Mask of the n cells with the greatest scores, of equal ones those of the lowest order."""
    least = np.partition(scores, -n)[-n]
    kept, tied = scores > least, np.flatnonzero(scores == least)
    wanted = n - int(kept.sum())
    kept[tied[np.argpartition(order[tied], wanted - 1)[:wanted]]] = True
    return kept


def _exclude(scores: np.ndarray, points: Points, catalogue: Catalogue) -> None:
    """Put -inf, in place, where an item may not be listed."""
    scores[points.excluded()] = -np.inf
    limits = np.iinfo(np.int64)
    limited = (catalogue.available_from > limits.min) | (catalogue.available_until < limits.max)
    columns = np.flatnonzero(limited)
    if len(columns):
        time = points.time[:, None]
        on_offer = (catalogue.available_from[columns] <= time) & (time < catalogue.available_until[columns])
        scores[:, columns] = np.where(on_offer, scores[:, columns], -np.inf)


def rank_points(
    model: Model,
    points: Points,
    catalogue: Catalogue,
    order: np.ndarray,
    k: int,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The lists of every point, in chunks of bounded memory; `progress` gets points done."""
    listed = np.full((len(points), k), -1, np.int32)
    found = np.full((len(points), k), np.nan, np.float32)
    begin = 0
    for top, scores in _chunks(model, points, catalogue, order, k):
        rows = slice(begin, begin + len(top))
        listed[rows], found[rows] = top, scores
        begin = rows.stop
        progress(len(top))
    return listed, found


def _chunks(
    model: Model, points: Points, catalogue: Catalogue, order: np.ndarray, k: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if not isinstance(model, Lister):
        for chunk in points.chunks(max(1, CELLS // max(len(catalogue), 1))):
            yield top_k(model.score(chunk), chunk, catalogue, order, k)
        return
    begin = 0
    for items, scores in model.candidates(points):
        chunk = points[begin : begin + len(items)]
        yield top_candidates(items, scores, chunk, catalogue, order, k)
        begin += len(items)


def top_candidates(
    items: np.ndarray, scores: np.ndarray, points: Points, catalogue: Catalogue, order: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """((points, k) int32 items, (points, k) float32 scores) of (points, candidates) items and scores.

    `order`: popularity_order's place of each item. Places without an item hold -1 and NaN.
    """
    allowed = listable(items, points, catalogue) & (scores > -np.inf)
    # By score, then by popularity's place: the last key sorts first.
    best = np.lexsort((order[np.maximum(items, 0)], np.where(allowed, -scores, np.inf)), axis=1)[:, :k]
    there = np.take_along_axis(allowed, best, axis=1)
    listed, found = np.full((len(points), k), -1, np.int32), np.full((len(points), k), np.nan, np.float32)
    listed[:, : best.shape[1]] = np.where(there, np.take_along_axis(items, best, axis=1), -1)
    found[:, : best.shape[1]] = np.where(there, np.take_along_axis(scores, best, axis=1), np.nan)
    short = np.flatnonzero((listed >= 0).sum(axis=1) < min(k, len(catalogue)))
    by_place = np.argsort(order) if len(short) else order
    for row in short:
        _fill(listed[row], points[row : row + 1], catalogue, by_place)
    return listed, found


def _fill(listed: np.ndarray, point: Points, catalogue: Catalogue, by_place: np.ndarray) -> None:
    """Popular items behind those listed, in place; -1 stays where the catalogue has no more."""
    have = int((listed >= 0).sum())
    wanted = len(listed) - have
    taken = set(listed[:have].tolist())
    for begin in range(0, len(by_place), FILL):
        block = by_place[begin : begin + FILL].astype(np.int32)
        allowed = listable(block[None], point, catalogue)[0]
        for item in block[allowed]:
            if int(item) not in taken:
                listed[len(listed) - wanted] = item
                wanted -= 1
                if not wanted:
                    return


def listable(items: np.ndarray, points: Points, catalogue: Catalogue) -> np.ndarray:
    """Which of the (points, n) items are on offer and, unless repeats count, not in the history."""
    safe, moment = np.maximum(items, 0), points.time[:, None]
    allowed = (
        (items >= 0) & (catalogue.available_from[safe] <= moment) & (moment < catalogue.available_until[safe])
    )
    return allowed & (lookup(excluded_matrix(points, len(catalogue)), items) == 0)


def target_ndcg(scores: np.ndarray, points: Points, k: int) -> np.ndarray:
    """(points,) nDCG@k of one target each, among items that may be listed; ties count against."""
    scores = np.nan_to_num(scores, nan=-np.inf)  # a copy
    scores[points.excluded()] = -np.inf
    target = scores[np.arange(len(points)), points.target]
    rank = (scores >= target[:, None]).sum(axis=1)
    return np.where((rank <= k) & (target > -np.inf), 1 / np.log2(1 + np.maximum(rank, 1)), 0)
