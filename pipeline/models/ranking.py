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
from pipeline.models.pairs import excluded_matrix, lookup

SALT = "evergreen.ranking"
FILL = 1024  # items at a time, where candidates are too few for a list
KEYS = 2_000_000  # at once, 16 MB: from 32 MB on every array comes from the system anew, page by page


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
    items = len(catalogue)
    listed = np.full((len(points), k), -1, np.int32)
    found = np.full((len(points), k), np.nan, np.float32)
    count = min(k, items)
    if not len(points) or not count:
        return listed, found
    keys = _keys(np.asarray(scores, dtype=np.float32), order)
    _exclude(keys, points, catalogue)
    if count < items:
        keys = np.partition(keys, items - count, axis=1)[:, items - count :]
    keys = np.sort(keys, axis=1)[:, ::-1]
    by_place = np.empty(items, np.int32)
    by_place[order] = np.arange(items, dtype=np.int32)
    # The low half of a key is items - place (1 .. items), so the item can be read back from it.
    low = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    chosen = np.where(low > 0, by_place[np.minimum(items - low, items - 1)], -1)
    listed[:, :count] = chosen
    value = np.take_along_axis(np.asarray(scores), np.maximum(chosen, 0), axis=1)
    found[:, :count] = np.where((chosen >= 0) & (value > -np.inf), value, np.nan)
    return listed, found


def _keys(scores: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(points, items) uint64 whose order is that of (scored?, score, popularity): all different in a row.

    A float's bits compare like an integer's once the sign bit is flipped (positive) or all bits are
    (negative). They fill the high half; unscored items have the least one, 1; 0 is left for exclusion.
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # + 0 makes one zero of -0 and 0
    bits ^= (bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(0x80000000)
    np.copyto(bits, np.uint32(1), where=~(scores > -np.inf))
    keys = np.left_shift(bits, np.uint64(32), dtype=np.uint64)
    keys |= (len(order) - order).astype(np.uint64)[None, :]
    return keys


def _exclude(keys: np.ndarray, points: Points, catalogue: Catalogue) -> None:
    keys[points.excluded()] = 0
    limits = np.iinfo(np.int64)
    limited = (catalogue.available_from > limits.min) | (catalogue.available_until < limits.max)
    columns = np.flatnonzero(limited)
    if len(columns):
        time = points.time[:, None]
        on_offer = (catalogue.available_from[columns] <= time) & (time < catalogue.available_until[columns])
        keys[:, columns] *= on_offer


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
        for chunk in points.chunks(max(1, KEYS // max(len(catalogue), 1))):
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
