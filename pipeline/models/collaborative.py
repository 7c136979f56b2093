"""What users took together: EASE, item-kNN, sequential rules and iALS on the recency-weighted history.

Fitted on the rows of a mask, frozen since; a user's history is live. Retrievers `ease`, `item_knn`, `rules`,
`ials`; columns <model>_<half-life of the history in items>, and what the fit's rows say of each item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import Log, Points
from pipeline.models import baselines
from pipeline.models.asked import DISLIKED, HALF_LIVES, Asked
from pipeline.models.binding import Arrays, moved
from pipeline.models.nearest import Nearest
from pipeline.models.pairs import (
    Columns,
    Retrieved,
    excluded_matrix,
    gathered,
    products,
    standardised,
)
from pipeline.models.ranking import target_ndcg
from pipeline.models.rules import sequential_rules

IALS_FACTORS, IALS_ALPHA = 128, 10.0
KNN_NEIGHBOURS, KNN_SHRINKAGE = 100, 30.0
KEPT_NEIGHBOURS = 300  # an item's, in the EASE matrix that is saved: what is served is what was evaluated
SHRUNK_BY = 5  # rows that pull an item's mean towards the overall one
RETRIEVING = 5  # the half-life whose scores retrieve
REGULARISATIONS = (100.0, 300.0, 1000.0)  # of EASE
IALS_REGULARISATIONS = (30.0, 10.0, 3.0)  # the first in the light preset; less pays where items are many
MOST_JUDGED = 2000  # of validation's points, where all items are scored


@dataclass(frozen=True)
class Settings:
    """Chosen on validation."""

    positives_only: bool
    regularisation: float  # of EASE
    ials_regularisation: float = IALS_REGULARISATIONS[0]

    def told(self) -> dict[str, object]:
        """What a model's card says of them."""
        return {
            "positives_only": self.positives_only,
            "ease_regularisation": self.regularisation,
            "ials_regularisation": self.ials_regularisation,
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Settings:
        """Raises KeyError."""
        ease, ials = told["ease_regularisation"], told["ials_regularisation"]
        return cls(bool(told["positives_only"]), float(ease), float(ials))


@dataclass(frozen=True)
class Collaborative:
    ease: baselines.ItemMatrix
    knn: baselines.ItemMatrix
    rules: baselines.ItemMatrix  # what follows what
    ials: baselines.Factors
    count: np.ndarray  # (items,) float32 rows of the fit; 0: a cold item
    value: np.ndarray  # (items,) float32 mean value in deviations from the overall mean, shrunk
    liked: np.ndarray  # (items,) float32 share of successes above the overall one, shrunk

    @classmethod
    def fit(cls, log: Log, rows: np.ndarray, items: int, settings: Settings, seed: int) -> Collaborative:
        met = baselines.interactions(log, rows & log.positive if settings.positives_only else rows, items)
        item, count = log.item[rows], np.bincount(log.item[rows], minlength=items)
        value = row_values(log)[rows]
        value = (value - value.mean()) / (value.std() + 1e-6) if len(value) else value
        liked = log.positive[rows] - log.positive[rows].mean() if len(item) else np.zeros(0)
        return cls(
            ease=baselines.ease(met, settings.regularisation).pruned(KEPT_NEIGHBOURS),
            knn=baselines.item_knn(met, KNN_NEIGHBOURS, KNN_SHRINKAGE),
            rules=sequential_rules(log, rows, items).quick(),
            ials=baselines.ials(met, IALS_FACTORS, settings.ials_regularisation, IALS_ALPHA, seed),
            count=count.astype(np.float32),
            value=(np.bincount(item, value, minlength=items) / (count + SHRUNK_BY)).astype(np.float32),
            liked=(np.bincount(item, liked, minlength=items) / (count + SHRUNK_BY)).astype(np.float32),
        )

    def owed(self, asked: Asked, row: int, items: np.ndarray) -> np.ndarray:
        """(n,) int32: of one point the history item that each of n items owes most of its EASE score, which
        is a sum over the history; -1: none adds to it. Reasons name it: pipeline/evaluation/faithful.py."""
        history = asked.weights[RETRIEVING][row]
        parts = self.ease.parts(history, items)
        if not len(parts):
            return np.full(len(items), -1, np.int32)
        best = parts.argmax(axis=0)
        return np.where(parts.max(axis=0) > 0, history.indices[best], -1).astype(np.int32)

    def users(self, asked: Asked) -> dict[int, np.ndarray]:
        """Half-life -> (points, factors) of iALS."""
        return asked.once(self, "users", lambda: {h: self.ials.users(asked.weights[h]) for h in HALF_LIVES})

    @property
    def cold(self) -> np.ndarray:
        """(items,) bool: without a row in the fit."""
        return self.count == 0

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        weights, users = asked.weights[RETRIEVING], self.users(asked)[RETRIEVING]
        lists = {
            "ease": self.ease.best(weights, n),
            "item_knn": self.knn.best(weights, n),
            "rules": self.rules.best(weights, n),
            "ials": self.nearest.best(users, n),
        }
        empty = np.diff(weights.indptr) == 0  # without a history every item is alike
        for items in lists.values():
            items[empty] = -1
        return lists

    def most_taken(self, points: int, n: int) -> np.ndarray:
        """(points, n) int32 items of the greatest counts above 0, best first, -1 behind; alike for all."""
        best = np.argsort(-self.count, kind="stable")[:n]
        best = best[self.count[best] > 0]
        return np.tile(np.pad(best, (0, n - len(best)), constant_values=-1).astype(np.int32), (points, 1))

    @cached_property
    def nearest(self) -> Nearest:
        return Nearest(self.ials.vectors, self.ials.known)

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        columns: Columns = {}
        users = np.stack(list(self.users(asked).values()), axis=1)
        found = {
            "ease": self.ease.pair_scores(asked.history, items),
            "knn": self.knn.pair_scores(asked.history, items),
            "rules": self.rules.pair_scores(asked.history, items),
            "ials": products(users, self.ials.vectors, items),
        }
        for name, scores in found.items():
            for half_life, score in zip(HALF_LIVES, scores, strict=True):
                columns[f"{name}_{half_life}"] = standardised(score, items, asked.width)
        columns["ease_raw"] = found["ease"][HALF_LIVES.index(RETRIEVING)]
        columns["cold"] = gathered(self.cold.astype(np.float32), items)
        columns["train_count"] = gathered(np.log1p(self.count), items)
        return columns | {
            "item_value": gathered(self.value, items),
            "item_liked": gathered(self.liked, items),
        }

    def arrays(self) -> Arrays:
        """What of it is saved; `bound` reads it back over another catalogue."""
        arrays = {"ials": self.ials.vectors, "ials.known": self.ials.known}
        arrays["ials.strength"] = np.array([self.ials.regularisation, self.ials.alpha])
        arrays |= {"count": self.count, "value": self.value, "liked": self.liked}
        for name, model in (("ease", self.ease), ("knn", self.knn), ("rules", self.rules)):
            sparse = sp.csr_matrix(model.matrix)
            arrays |= {f"{name}.kept": model.kept, f"{name}.data": sparse.data}
            arrays |= {f"{name}.indices": sparse.indices, f"{name}.indptr": sparse.indptr}
        return arrays

    @classmethod
    def bound(cls, arrays: Arrays, place: np.ndarray, items: int) -> Collaborative:
        """`place`: (saved items,) their number in a catalogue of so many `items`, -1: gone."""
        known = moved(arrays["ials.known"], place, items)
        strength = map(float, arrays["ials.strength"])
        factors = baselines.Factors(moved(arrays["ials"], place, items), known, *strength)
        statistics = (moved(arrays[name], place, items) for name in ("count", "value", "liked"))
        return cls(
            _matrix(arrays, "ease", place, items).quick(),
            _matrix(arrays, "knn", place, items),
            _matrix(arrays, "rules", place, items),
            factors,
            *statistics,
        )


def _matrix(arrays: Arrays, name: str, place: np.ndarray, items: int) -> baselines.ItemMatrix:
    kept = place[arrays[f"{name}.kept"]]
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    matrix = sp.csr_matrix(parts, shape=(len(kept), len(kept)))
    there = np.flatnonzero(kept >= 0)  # both catalogues are sorted by id, so the order stands
    if len(there) < len(kept):
        matrix = matrix[there][:, there]
    return baselines.ItemMatrix(items, kept[there].astype(np.int32), matrix)


def choose(log: Log, rows: np.ndarray, validation: Points, items: int, seed: int) -> Settings:
    """The settings of the best validation nDCG@10, mean over users, fitted on the rows of a mask: of EASE
    first, then of iALS on the same rows."""
    matrices = {
        only: baselines.interactions(log, rows & log.positive if only else rows, items)
        for only in ((True, False) if not log.positive.all() else (False,))
    }
    history = validation.history(items, (RETRIEVING,), baselines.liking(log, DISLIKED))
    weights = history.without_small(baselines.SMALL).matrix(0)
    quality = {}
    for positives_only, met in matrices.items():
        for regularisation in REGULARISATIONS:
            gain = _gains(baselines.ease(met, regularisation), weights, validation)
            quality[Settings(positives_only, regularisation)] = _mean_of_users(gain, validation)
    best = max(quality, key=lambda settings: quality[settings])
    some = validation[:: 1 + len(validation) // MOST_JUDGED]
    of_ials = {}
    for regularisation in IALS_REGULARISATIONS if len(some) else IALS_REGULARISATIONS[:1]:
        met = matrices[best.positives_only]
        factors = baselines.ials(met, IALS_FACTORS, regularisation, IALS_ALPHA, seed)
        scorer = baselines.HistoryScorer("ials", items, factors.score, RETRIEVING, DISLIKED)
        parts = (some[part] for part in baselines.blocks(len(some), items))
        gains = [target_ndcg(scorer.score(points), points, 10) for points in parts]
        of_ials[regularisation] = _mean_of_users(np.concatenate(gains or [np.zeros(0)]), some)
    return replace(best, ials_regularisation=max(of_ials, key=lambda each: of_ials[each]))


def _mean_of_users(gain: np.ndarray, points: Points) -> float:
    place = np.unique(points.user, return_inverse=True)[1]
    return float((np.bincount(place, gain) / np.bincount(place)).mean()) if len(gain) else 0.0


def _gains(ease: baselines.ItemMatrix, weights: sp.csr_matrix, points: Points) -> np.ndarray:
    """(points,) nDCG@10 among the items that the matrix keeps; 0 where it does not keep the target."""
    if not len(ease.kept) or not len(points):
        return np.zeros(len(points))
    scores = ease.among_kept(weights)
    point, place = excluded_matrix(points, ease.items)[:, ease.kept].nonzero()
    scores[point, place] = -np.inf
    place = np.minimum(np.searchsorted(ease.kept, points.target), len(ease.kept) - 1)
    rank = (scores >= scores[np.arange(len(points)), place][:, None]).sum(axis=1)
    return np.where((ease.kept[place] == points.target) & (rank <= 10), 1 / np.log2(1 + rank), 0)


def row_values(log: Log) -> np.ndarray:
    """(rows of the log,) float32: the row's value; without one, 1 for a success and 0 for none."""
    return np.where(np.isnan(log.value), log.positive, log.value).astype(np.float32)
