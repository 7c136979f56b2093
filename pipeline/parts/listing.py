"""From candidates and their scores to ranked lists, by the rules of pipeline/models/ranking.py.

Listed are a point's best candidates; where they are too few for a list, further items follow in the frozen
popularity order, unscored (NaN).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.data.histories import Catalogue, Points
from pipeline.parts.candidates import listable
from pipeline.parts.recommender import Recommender

FILL = 1024  # items at a time, where candidates are too few for a list


def rank_points(
    model: Recommender,
    points: Points,
    catalogue: Catalogue,
    order: np.ndarray,
    k: int,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """top_candidates of every point, in the model's chunks; `progress` gets points done."""
    listed, found = np.full((len(points), k), -1, np.int32), np.full((len(points), k), np.nan, np.float32)
    begin = 0
    for items, scores in model.candidates(points):
        rows = slice(begin, begin + len(items))
        listed[rows], found[rows] = top_candidates(items, scores, points[rows], catalogue, order, k)
        begin = rows.stop
        progress(len(items))
    return listed, found


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
    by_place = np.argsort(order)
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
