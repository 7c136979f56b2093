"""A model's parts, asked for one point at a time, as a service asks.

Parts (pipeline/models/parts.py) are made for many points at once; of one point most of their time goes into
taking arrays apart. Here are the same parts over the same arrays for one point: the half-lives of a history
lie side by side as if they were points, and what does not change between questions is computed once. Lists
and columns are those of the parts (tests/test_serve_engine.py).
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY
from pipeline.models import baselines
from pipeline.models.asked import DISLIKED, HALF_LIVES, Asked
from pipeline.models.collaborative import RETRIEVING, Collaborative
from pipeline.models.kinds import Kinds
from pipeline.models.living import LONG, SHORT, Living
from pipeline.models.pairs import Columns, Retrieved, largest, standardised
from pipeline.models.parts import Parts
from pipeline.models.sequence import Sequence
from pipeline.models.text import LAST_ITEMS, Text, unit


def single(parts: Parts) -> Parts:
    """The same parts for one point at a time."""
    return replace(
        parts,
        collaborative=OneCollaborative.one(parts.collaborative),
        sequence=None if parts.sequence is None else OneSequence.one(parts.sequence),
        text=None if parts.text is None else OneText.one(parts.text),
        kinds=OneKinds.one(parts.kinds),
    )


class One(Asked):
    """One point."""

    @property
    def index(self) -> np.ndarray:
        """(different items,) of the history, ascending."""
        return self._present[0]

    @property
    def weight(self) -> np.ndarray:
        """(half-lives, different items) float32: `Asked.weights` of the one point; 0: too small to count."""
        return self._present[1]

    @cached_property
    def weights(self) -> dict[int, sp.csr_matrix]:
        return {h: self._row(weight) for h, weight in zip(HALF_LIVES, self.weight, strict=True)}

    @cached_property
    def plain(self) -> sp.csr_matrix:
        return self._row(np.ones(len(self.index), np.float32))

    def _row(self, weight: np.ndarray) -> sp.csr_matrix:
        there = weight > 0
        ends = np.array([0, int(there.sum())])
        return sp.csr_matrix((weight[there], self.index[there], ends), shape=(1, self.items))

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What a part computes of the point, to retrieve and again for its columns."""
        return {}

    @cached_property
    def _present(self) -> tuple[np.ndarray, np.ndarray]:
        span = slice(int(self.points.start[0]), int(self.points.stop[0]))
        log = self.points.log
        item, time = log.item[span], log.time[span]
        if not len(item):
            return item, np.zeros((len(HALF_LIVES), 0), np.float32)
        newer = np.arange(len(item) - 1, -1, -1, dtype=np.float64)
        new = np.r_[True, time[1:] != time[:-1]]
        if not new.all():  # rows of one moment share the mean of their places
            run = np.cumsum(new) - 1
            newer = (np.bincount(run, newer) / np.bincount(run))[run]
        weight = np.exp2(-newer / np.array(HALF_LIVES)[:, None])
        weight *= baselines.liking(log, DISLIKED)[span]
        order = np.argsort(item, kind="stable")
        first = np.flatnonzero(np.r_[True, np.diff(item[order]) != 0])
        best = np.maximum.reduceat(weight[:, order], first, axis=1).astype(np.float32)
        best[best < baselines.SMALL * best.max(axis=1, keepdims=True)] = 0
        return item[order][first], best


def rows_of(matrix: sp.csr_matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(columns, values, cells of each row) of some rows of a sparse matrix, one row behind another."""
    start = matrix.indptr[rows]
    lengths = matrix.indptr[rows + 1] - start
    before = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum())) + np.repeat(start - before, lengths)
    return matrix.indices[place], matrix.data[place], lengths


class Space:
    """Sums over a few items of a large catalogue, without sorting and without a pass over all of it."""

    def __init__(self, items: int) -> None:
        self.places = np.zeros(items, np.int64)

    def sums(self, items: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(different items, their sums (rows, items)) of cells (n,) items and (rows, n) values."""
        self.places[items] = np.arange(len(items))
        different = items[self.places[items] == np.arange(len(items))]
        self.places[different] = np.arange(len(different))
        place = self.places[items]
        sums = [np.bincount(place, row, minlength=len(different)) for row in values]
        return different, np.array(sums, np.float32)

    def read(self, items: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """(rows, wanted): of (rows, items) values those of the wanted items, 0 for others."""
        if not len(items):
            return np.zeros((len(values), len(wanted)), np.float32)
        self.places[items] = np.arange(len(items))  # elsewhere stands what was there before
        place = self.places[wanted]
        place = np.where(
            (place < len(items)) & (items[np.minimum(place, len(items) - 1)] == wanted), place, -1
        )
        return np.where(place >= 0, values[:, place], 0)


class Scores(NamedTuple):
    """What the models of a fit say of one history; the first side of arrays is the half-lives."""

    users: np.ndarray  # (half-lives, factors) float32 of iALS
    ease: np.ndarray  # (half-lives, kept) float32
    cells: dict[str, tuple[np.ndarray, np.ndarray]]  # of the sparse models: items, (half-lives, items) scores


OF_VECTORS = ("id_embedding.weight", "bias", "project.weight")  # of a tower


class OneCollaborative(Collaborative):
    @classmethod
    def one(cls, part: Collaborative) -> Self:
        return cls(**_fields(part))

    def users(self, asked: Asked) -> dict[int, np.ndarray]:
        users = self._scores(asked).users
        return {h: users[place : place + 1] for place, h in enumerate(HALF_LIVES)}

    def _scores(self, asked: Asked) -> Scores:
        assert isinstance(asked, One)
        if "collaborative" not in asked.kept:
            cells = {}
            for name, model in (("knn", self.knn), ("rules", self.rules)):
                items, values = self._cells(model, asked)
                cells[name] = self._space.sums(model.kept[items], values)
            asked.kept["collaborative"] = Scores(self._users(asked), self._ease(asked), cells)
        found: Scores = asked.kept["collaborative"]
        return found

    @staticmethod
    def _cells(model: baselines.ItemMatrix, asked: One) -> tuple[np.ndarray, np.ndarray]:
        """(cells,) columns and (half-lives, cells) weighted values of the rows of the history."""
        row = model._place[asked.index]
        there = row >= 0
        column, value, lengths = rows_of(sp.csr_matrix(model.matrix), row[there])
        return column, value * np.repeat(asked.weight[:, there], lengths, axis=1)

    def _ease(self, asked: One) -> np.ndarray:
        model, kept = self.ease, len(self.ease.kept)
        if isinstance(model.matrix, np.ndarray):
            row = model._place[asked.index]
            dense: np.ndarray = asked.weight[:, row >= 0] @ model.matrix[row[row >= 0]]
            return dense
        column, value = self._cells(model, asked)
        return np.array([np.bincount(column, each, minlength=kept) for each in value], np.float32)

    def _users(self, asked: One) -> np.ndarray:
        """As Factors.users."""
        known = self.ials.known[asked.index]
        weight = asked.weight[:, known].astype(np.float64)
        history = self.ials.vectors[asked.index[known]].astype(np.float64)
        extra = self.ials.alpha * weight
        size = history.shape[1]
        left = self.ials._gram + self.ials.regularisation * np.eye(size)
        left = left + (history.T * extra[:, None, :]) @ history
        right = np.where(weight > 0, 1 + extra, 0) @ history
        return np.linalg.solve(left, right[:, :, None])[:, :, 0].astype(np.float32)

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        place, scores = HALF_LIVES.index(RETRIEVING), self._scores(asked)
        if not asked.points.lengths[0]:  # without a history every item is alike
            return {name: np.full((1, n), -1, np.int32) for name in ("ease", "item_knn", "rules", "ials")}
        ease = scores.ease[place]
        best = largest(ease[None], n)[0]
        best = self.ease.kept[best[ease[best] > 0]]
        return {
            "ease": np.pad(best, (0, n - len(best)), constant_values=-1)[None],
            "item_knn": _best_cells(*scores.cells["knn"], place, n),
            "rules": _best_cells(*scores.cells["rules"], place, n),
            "ials": self._nearest.best(scores.users[place : place + 1], n),
        }

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        scores, kept = self._scores(asked), self.ease._place[items[0]]
        ease = np.zeros((len(HALF_LIVES), len(kept)), np.float32)
        if len(self.ease.kept):
            ease = np.where(kept >= 0, scores.ease[:, np.maximum(kept, 0)], 0)
        found = {"ease": ease, "ials": scores.users @ self.ials.vectors[items[0]].T}
        found |= {name: self._space.read(*cells, items[0]) for name, cells in scores.cells.items()}
        together = np.concatenate(list(found.values()))
        rows = iter(standardised(together, np.broadcast_to(items, together.shape)))
        columns = {f"{name}_{h}": next(rows)[None] for name in found for h in HALF_LIVES}
        columns["ease_raw"] = ease[HALF_LIVES.index(RETRIEVING)][None]
        return columns | {name: values[items] for name, values in self._of_items.items()}

    @cached_property
    def _space(self) -> Space:
        return Space(len(self.count))

    @cached_property
    def _of_items(self) -> dict[str, np.ndarray]:
        return {
            "cold": self.cold.astype(np.float32),
            "train_count": np.log1p(self.count),
            "item_value": self.value,
            "item_liked": self.liked,
        }


class OneSequence(Sequence):
    @classmethod
    def one(cls, part: Sequence) -> Self:
        """Once its items' vectors are made, the tower gives up what they were made of: half of its memory."""
        weights = {name: value for name, value in part.weights.items() if name not in OF_VECTORS}
        made = cls(part.kind, weights, None)
        made.__dict__["_vectors"] = part._vectors
        return made


class OneText(Text):
    @classmethod
    def one(cls, part: Text) -> Self:
        return cls(**_fields(part))

    def retrieve(self, asked: Asked, n: int, ials: np.ndarray, cold: np.ndarray) -> Retrieved:
        users = self._profiles(asked)[:1]
        nothing = np.full((1, n), -1, np.int32)
        return {
            "text": self._nearest.best(users, n) if users.any() else nothing,
            "text_of_cold": self._nearest_of_cold(cold).best(ials, n) if ials.any() else nothing,
        }

    def _profiles(self, asked: Asked) -> np.ndarray:
        """(3, width): means of the history's texts by half-lives 5 and 30, and plain."""
        assert isinstance(asked, One)
        if "text" not in asked.kept:
            weight = asked.weight[[HALF_LIVES.index(h) for h in (5, 30)] + [0]]
            weight[2] = 1
            asked.kept["text"] = unit(weight @ self._narrow[asked.index])
        found: np.ndarray = asked.kept["text"]
        return found

    def _unfaded(self, asked: Asked, items: np.ndarray, ials: np.ndarray, cold: np.ndarray) -> Columns:
        vectors, log, stop = self._narrow[items[0]], asked.points.log, int(asked.points.stop[0])
        close = vectors @ self._profiles(asked).T
        names = ("text_5", "text_30", "text_mean")
        columns = {name: close[None, :, place] for place, name in enumerate(names)}
        newest = self._narrow[log.item[max(int(asked.points.start[0]), stop - LAST_ITEMS) : stop]]
        nearest = (vectors @ newest.T).max(axis=1, initial=0 if len(newest) < LAST_ITEMS else -np.inf)
        imputed = standardised((self.expected[items[0]] @ ials[0])[None], items)
        of_cold = cold[items].astype(np.float32)
        return columns | {
            "text_max": nearest[None],
            "imputed_ials": imputed,
            "imputed_popularity": self.popularity[items],
            "imputed_ials_of_cold": imputed * of_cold,
            "text_of_cold": columns["text_5"] * of_cold,
        }


class OneLiving(Living):
    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        time, near = asked.points.time, self._neighbours(asked)
        return {
            "live_short": self.live.top(time, SHORT, n),
            "live_long": self.live.top(time, LONG, n),
            "newest": self.live.newest(self.available_from, time, n),
            "neighbours": _best_cells(near.indices, near.data[None], 0, n),
        }


class OneKinds(Kinds):
    @classmethod
    def one(cls, part: Kinds) -> Self:
        return cls(**_fields(part))

    def profile(self, asked: Asked, half_life: int) -> np.ndarray:
        assert isinstance(asked, One)
        column, value, lengths = rows_of(self.categories, asked.index)
        value = value * np.repeat(asked.weight[HALF_LIVES.index(half_life)], lengths)
        profile = np.bincount(column, value, minlength=self.categories.shape[1]).astype(np.float32)
        norm = np.linalg.norm(profile)
        return (profile / (norm if norm > 0 else 1))[None]

    def _years(self, asked: Asked, items: np.ndarray) -> Columns:
        assert isinstance(asked, One)
        had, recent = self.year[asked.index], asked.weight[HALF_LIVES.index(5)]
        known = np.isfinite(had)
        total = recent[known].sum(dtype=np.float64)
        mean = recent[known] @ had[known] / total if total > 0 else np.nan
        of_item = self.year[items]
        gap = np.nan_to_num((of_item - mean) / 10).astype(np.float32)
        now = 1970 + asked.points.time / (MICROSECONDS_A_DAY * 365.2425)
        age = np.nan_to_num(now[:, None] - of_item).astype(np.float32)
        return {"year_gap": gap, "year_distance": np.abs(gap), "release_age": np.log1p(np.maximum(age, 0))}


def union(retrieved: Retrieved, allowed: Any, most: int) -> np.ndarray:
    """(at most `most`,) int32 candidates as pipeline.models.candidates.union has them, of one point.

    `allowed`: (n,) items, -1 among them -> (n,) bool.
    """
    lists = [items[0] for items in retrieved.values()]
    longest = max(map(len, lists))
    table = np.full((longest, len(lists)), -1, np.int32)
    for place, items in enumerate(lists):
        table[: len(items), place] = items
    items = table.ravel()  # every retriever's best come first
    items = items[items >= 0]
    items = items[allowed(items)]
    _, first = np.unique(items, return_index=True)
    return np.ascontiguousarray(items[np.sort(first)][:most])


def _best_cells(items: np.ndarray, scores: np.ndarray, row: int, n: int) -> np.ndarray:
    """(1, n) int32 items of the greatest scores above 0, best first, -1 behind."""
    place = largest(scores[row][None], n)[0]
    best = items[place[scores[row][place] > 0]]
    return np.pad(best, (0, n - len(best)), constant_values=-1)[None]


def _fields(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part) if field.init}
