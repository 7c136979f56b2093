"""From scores to ranked lists: the same rules for every model.

In: (points, items) float32 scores over the catalogue, NaN or -inf where a model cannot score.
Out: (points, k) item indices, best first. Listed are the items available at the point's time and not in the
user's strict history (with `preprocess.repeats: include` also those): first the scored ones, then the rest,
in both ties by the frozen popularity order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from pipeline.data.histories import Catalogue, Points
from pipeline.models.baselines import BLOCK_BYTES, Scorer

SALT = "evergreen.ranking"
_KEY_BYTES = 8


def popularity_order(popularity: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """(items,) int32 place of each item, 0 the most popular; ties by a fixed-salt md5 of the id."""
    digests = np.array([hashlib.md5(f"{SALT}|{item}".encode()).hexdigest() for item in item_ids], dtype="U32")
    place = np.empty(len(popularity), np.int32)
    place[np.lexsort((digests, -popularity))] = np.arange(len(popularity), dtype=np.int32)
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
    high = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(0x80000000))
    high[~(scores > -np.inf)] = 1
    keys = high.astype(np.uint64)
    keys <<= np.uint64(32)
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
    scorer: Scorer,
    points: Points,
    catalogue: Catalogue,
    order: np.ndarray,
    k: int,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """top_k of every point, in chunks whose keys fill at most BLOCK_BYTES; `progress` gets points done."""
    size = max(1, BLOCK_BYTES // (_KEY_BYTES * max(len(catalogue), 1)))
    listed = np.full((len(points), k), -1, np.int32)
    found = np.full((len(points), k), np.nan, np.float32)
    begin = 0
    for chunk in points.chunks(size):
        rows = slice(begin, begin + len(chunk))
        listed[rows], found[rows] = top_k(scorer.score(chunk), chunk, catalogue, order, k)
        begin += len(chunk)
        progress(len(chunk))
    return listed, found
