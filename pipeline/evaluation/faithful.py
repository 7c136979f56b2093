"""Are reasons true? A listed item's score without the history item that its reason names.

In: a trained model, points. Out: by how much a listed item's score, less the mean candidate's, falls when the
history item that it owes most (pipeline/models/collaborative.py, `owed`: the reasons `goes with ...` and
`like ..., which you had` name it) is taken out of the history, against another item of the same history. Each
user counts alike, at one point, and is redrawn for the interval. Candidates and the live state stay; whatever
else reads the history (towers, texts, counts) reads it without the item, as if the user had never taken it.
Deletion as the test of an attribution: Samek et al. 2017, "Evaluating the visualization of what a deep neural
network has learned". Whole curves, and other attributions: `evergreen bench reasons`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.data.histories import Points
from pipeline.evaluation import metrics
from pipeline.models.asked import Asked
from pipeline.models.pairs import largest
from pipeline.models.parts import CHUNK, stacked
from pipeline.models.recommender import Recommender

USERS, K = 100, 10  # that are asked, at most; listed items of each
# Rows of a history whose items are taken out: older ones hardly count, so chance would look worse.
NEWEST = 30
LEAST_ITEMS, OTHERS = 3, 3  # different ones among them; how many others are taken out


@dataclass(frozen=True)
class Listed:
    """What a model lists at one point."""

    model: Recommender
    point: Points  # one
    items: np.ndarray  # (1, candidates) int32
    top: np.ndarray  # (at most K,) places among them, best first
    score: np.ndarray  # (top,) less the mean candidate's
    owed: np.ndarray  # (top,) history item that a reason names; -1: none

    @classmethod
    def of(cls, model: Recommender, point: Points) -> Listed:
        asked = next(iter(model.parts.ask(point)))
        items = model.parts.candidates(asked)
        items = items[:, items[0] >= 0]
        score = _scores(model, asked, items)
        top = largest(score, K)[0]
        owed = model.parts.collaborative.owed(asked, 0, items[0, top])
        return cls(model, asked.points, items, top, score[0, top], owed)

    @property
    def newest(self) -> np.ndarray:
        """Different items of the newest rows of the history, ascending."""
        start, stop = int(self.point.start[0]), int(self.point.stop[0])
        return np.unique(self.point.log.item[max(start, stop - NEWEST) : stop])

    def without(self, removed: np.ndarray) -> np.ndarray:
        """(histories, n) items taken out of the history, -1: none -> (histories, top) scores."""
        found = [np.zeros((0, len(self.top)), np.float32)]
        for begin in range(0, len(removed), CHUNK):
            chosen = removed[begin : begin + CHUNK]
            points = without(self.point[np.zeros(len(chosen), np.int64)], chosen)
            asked = Asked(points, len(self.model.catalogue))
            scores = _scores(self.model, asked, np.repeat(self.items, len(chosen), axis=0))
            found.append(scores[:, self.top])
        return np.concatenate(found)


def faithfulness(model: Recommender, points: Points, samples: int, seed: int) -> dict[str, Any]:
    """`named` and `other`: by how much the score falls without the one, without another; their difference
    with its 95 % interval. `items`: listed ones whose reason names an item, of `users`; without any, NaN."""
    generator = np.random.default_rng(seed)
    rows = [_falls(listed, generator) for listed in _some(model, points, generator)]
    falls = np.concatenate([np.zeros((0, 3)), *rows])  # (listed items, [named, other, user])
    of_users = np.zeros((0, 2))
    if len(falls):
        of_users = metrics.group_means(falls[:, :2], falls[:, 2])
    named, other = of_users.mean(axis=0) if len(of_users) else (np.nan, np.nan)
    gain = of_users[:, :1] - of_users[:, 1:]
    low, high = metrics.interval(metrics.user_bootstrap(gain, samples, seed))
    ends = {"named": named, "other": other, "difference": named - other, "low": low[0], "high": high[0]}
    return {name: float(end) for name, end in ends.items()} | {"items": len(falls), "users": len(of_users)}


def _some(model: Recommender, points: Points, generator: np.random.Generator) -> list[Listed]:
    """Of users by chance, each at one point by chance."""
    order = generator.permutation(np.flatnonzero(points.lengths >= LEAST_ITEMS))
    _, first = np.unique(points.user[order], return_index=True)
    chosen = order[np.sort(first)[:USERS]]
    found = [Listed.of(model, points[row : row + 1]) for row in chosen]
    return [listed for listed in found if len(listed.newest) >= LEAST_ITEMS and len(listed.top)]


def _falls(listed: Listed, generator: np.random.Generator) -> np.ndarray:
    """(listed items whose reason names one of the newest, [fall without it, without others, user])."""
    newest = listed.newest
    told = np.flatnonzero(np.isin(listed.owed, newest))
    others = generator.permutation(newest)[: OTHERS + 1]
    removed = np.union1d(listed.owed[told], others)
    fall = listed.score - listed.without(removed[:, None])
    rows = []
    for place in told:
        named = listed.owed[place]
        by_chance = np.searchsorted(removed, others[others != named][:OTHERS])
        fallen = fall[np.searchsorted(removed, named), place], fall[by_chance, place].mean()
        rows.append((*fallen, listed.point.user[0]))
    return np.array(rows, float).reshape(-1, 3)


def without(points: Points, removed: np.ndarray) -> Points:
    """The same points, each without some items in its history, over a log of these histories alone.

    `removed`: (points, n) items, -1: none.
    """
    point, row = points.rows()
    log = points.log
    kept = ~(removed[point] == log.item[row][:, None]).any(axis=1)
    point, row = point[kept], row[kept]
    ends = np.r_[0, np.cumsum(np.bincount(point, minlength=len(points)))].astype(np.int64)
    names = ("item", "time", "value", "positive", "fit", "window")
    columns: dict[str, Any] = {name: getattr(log, name)[row] for name in names}
    liked = None if log.liked is None else log.liked[row]
    own = replace(log, user=point.astype(np.int32), indptr=ends, text=None, liked=liked, **columns)
    return replace(points, log=own, start=ends[:-1], stop=ends[1:])


def _scores(model: Recommender, asked: Asked, items: np.ndarray) -> np.ndarray:
    """(points, candidates) less their mean."""
    features = stacked(model.parts.columns(asked, items), model.card["features"])
    scores = model.scorer.score(features)
    centred: np.ndarray = scores - scores.mean(axis=1, keepdims=True)
    return centred
