"""A model's parts, asked for one point at a time, as a service asks.

Parts (pipeline/models/parts.py) are made for many points at once; of one point most of their time goes into
taking arrays apart. Here are the same parts over the same arrays for one point: the half-lives of a history
lie side by side as if they were points, and what does not change between questions is computed once. Lists
and columns are those of the parts (tests/test_serve_engine.py).
"""

from __future__ import annotations

from collections.abc import Callable
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
from pipeline.models.pairs import Columns, Retrieved
from pipeline.models.parts import Parts
from pipeline.models.sequence import Sequence
from pipeline.models.text import FADING, LAST_ITEMS, Text, unit
from pipeline.serve.sums import Space, best_cells, rows_of


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


class Scores(NamedTuple):
    """What the models of a fit say of one history; the first side of arrays is the half-lives."""

    users: np.ndarray  # (half-lives, factors) float32 of iALS
    ease: np.ndarray  # (half-lives, kept) float32
    cells: dict[str, tuple[np.ndarray, np.ndarray]]  # of the sparse models: items, (half-lives, items) scores


NAMES = [f"{name}_{h}" for name in ("ease", "ials", "knn", "rules") for h in HALF_LIVES]
OF_ITEMS = ("cold", "train_count", "item_value", "item_liked")  # columns that are of an item alone
TEXTS = (
    *("text_5", "text_30", "text_mean", "text_max"),
    *("imputed_ials", "imputed_popularity", "imputed_ials_of_cold", "text_of_cold"),
)
YEARS = ("year_gap", "year_distance", "release_age")
PROFILES = (5, 30)  # half-lives by which categories are compared
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
                cells[name] = self._spaces[name].sums(model.kept.take(items), values)
            asked.kept["collaborative"] = Scores(self._users(asked), self._ease(asked), cells)
        found: Scores = asked.kept["collaborative"]
        return found

    @staticmethod
    def _cells(model: baselines.ItemMatrix, asked: One) -> tuple[np.ndarray, np.ndarray]:
        """(cells,) columns and (half-lives, cells) weighted values of the rows of the history."""
        assert not isinstance(model.matrix, np.ndarray)
        row = model._place[asked.index]
        there = row >= 0
        column, value, lengths = rows_of(model.matrix, row[there])
        return column, asked.weight[:, there].repeat(lengths, axis=1) * value

    def _ease(self, asked: One) -> np.ndarray:
        model, kept = self.ease, len(self.ease.kept)
        if isinstance(model.matrix, np.ndarray):
            row = model._place[asked.index]
            dense: np.ndarray = asked.weight[:, row >= 0] @ model.matrix[row[row >= 0]]
            return dense
        column, value = self._cells(model, asked)
        column = column.astype(np.intp)
        return np.array([np.bincount(column, each, minlength=kept) for each in value], np.float32)

    def owed(self, asked: Asked, row: int, items: np.ndarray) -> np.ndarray:
        assert isinstance(asked, One)
        model, weight = self.ease, asked.weight[HALF_LIVES.index(RETRIEVING)]
        history, column = model._place[asked.index], model._place[items]
        counted = np.flatnonzero((history >= 0) & (weight > 0))
        found = np.full(len(items), -1, np.int32)
        asked_for = np.flatnonzero(column >= 0)
        if not len(counted) or not len(asked_for):
            return found
        history, column = history[counted], column[asked_for]
        if isinstance(model.matrix, np.ndarray):
            parts = model.matrix[np.ix_(history, column)]
        else:
            cells, values, lengths = rows_of(model.matrix, history)
            self._asked_for[column] = np.arange(len(column))
            place = self._asked_for[cells]
            some = np.flatnonzero(place >= 0)
            parts = np.zeros((len(history), len(column)), np.float32)
            parts[np.arange(len(history)).repeat(lengths)[some], place[some]] = values[some]
            self._asked_for[column] = -1
        parts = parts * weight[counted, None]
        best = counted[parts.argmax(axis=0)]
        found[asked_for] = np.where(parts.max(axis=0) > 0, asked.index[best], -1)
        return found

    @cached_property
    def _asked_for(self) -> np.ndarray:
        """(kept by EASE,) places of some, -1 for others: written and cleared."""
        return np.full(len(self.ease.kept), -1)

    def _users(self, asked: One) -> np.ndarray:
        """As Factors.users."""
        known = self.ials.known[asked.index]
        return self.ials.folded(asked.index[known], asked.weight[:, known])

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        place, scores = HALF_LIVES.index(RETRIEVING), self._scores(asked)
        if not asked.points.lengths[0]:  # without a history every item is alike
            return {name: np.full((1, n), -1, np.int32) for name in ("ease", "item_knn", "rules", "ials")}
        knn, rules = (scores.cells[name] for name in ("knn", "rules"))
        return {
            "ease": best_cells(self.ease.kept, scores.ease[place], n),
            "item_knn": best_cells(knn[0], knn[1][place], n),
            "rules": best_cells(rules[0], rules[1][place], n),
            "ials": self.nearest.best(scores.users[place : place + 1], n),
        }

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        scores, kept = self._scores(asked), self.ease._place[items[0]]
        ease = np.zeros((len(HALF_LIVES), len(kept)), np.float32)
        if len(self.ease.kept):
            ease = np.where(kept >= 0, scores.ease.take(np.maximum(kept, 0), axis=1), 0)
        found = {"ease": ease, "ials": scores.users @ self.ials.vectors.take(items[0], axis=0).T}
        for name, cells in scores.cells.items():
            found[name] = self._spaces[name].read(*cells, items[0])
        columns = dict(zip(NAMES, standard(np.concatenate(list(found.values())))[:, None], strict=True))
        columns["ease_raw"] = ease[HALF_LIVES.index(RETRIEVING)][None]
        of_items = self._of_items.take(items[0], axis=0).T
        return columns | dict(zip(OF_ITEMS, of_items[:, None], strict=True))

    @cached_property
    def _spaces(self) -> dict[str, Space]:
        return {name: Space(len(self.count)) for name in ("knn", "rules")}

    @cached_property
    def cold(self) -> np.ndarray:
        return self.count == 0

    @cached_property
    def _of_items(self) -> np.ndarray:
        """(items, columns of OF_ITEMS)."""
        return np.stack([self.cold.astype(np.float32), np.log1p(self.count), self.value, self.liked], axis=1)


def standard(columns: np.ndarray) -> np.ndarray:
    """(rows, candidates) float32 as `standardised` has them."""
    centred = columns - columns.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("rc,rc->r", centred, centred) / max(1, columns.shape[1]))
    centred /= np.where(deviation > 1e-8, deviation, 1)[:, None]
    return centred


class OneSequence(Sequence):
    @classmethod
    def one(cls, part: Sequence) -> Self:
        """Once its items' vectors are made, the tower gives up what they were made of: half of its memory."""
        weights = {name: value for name, value in part.weights.items() if name not in OF_VECTORS}
        made = cls(part.kind, weights, None)
        made.__dict__["_vectors"] = part._vectors
        return made

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        if not self._fitted:
            return super().columns(asked, items)
        scores = (self._vectors.take(items[0], axis=0) @ self._users(asked)[0])[None]
        return {"sequence": scores, "sequence_z": standard(scores)}

    @cached_property
    def _fitted(self) -> bool:
        return bool(self.known.any())


class OneText(Text):
    @classmethod
    def one(cls, part: Text) -> Self:
        return cls(**_fields(part))

    def retrieve(self, asked: Asked, n: int, ials: np.ndarray, cold: np.ndarray) -> Retrieved:
        users = self._profiles(asked)[:1]
        nothing = np.full((1, n), -1, np.int32)
        return {
            "text": self.nearest.best(users, n) if users.any() else nothing,
            "text_of_cold": self.nearest_of_cold(cold).best(ials, n) if ials.any() else nothing,
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

    def columns(
        self, asked: Asked, items: np.ndarray, ials: np.ndarray, cold: np.ndarray, rows: np.ndarray
    ) -> Columns:
        log, stop = asked.points.log, int(asked.points.stop[0])
        newest = self._narrow[log.item[max(int(asked.points.start[0]), stop - LAST_ITEMS) : stop]]
        close = self._narrow.take(items[0], axis=0) @ np.concatenate([self._profiles(asked), newest]).T
        found = np.empty((len(TEXTS), items.shape[1]), np.float32)
        found[:3] = close[:, :3].T
        found[3] = close[:, 3:].max(axis=1, initial=0 if len(newest) < LAST_ITEMS else -np.inf)
        found[4] = standard((self.expected.take(items[0], axis=0) @ ials[0])[None])
        found[5] = self.popularity[items[0]]
        found[6:] = found[[4, 0]] * cold[items]
        found *= np.exp(-FADING * rows)
        return dict(zip(TEXTS, found[:, None], strict=True))


class OneKinds(Kinds):
    @classmethod
    def one(cls, part: Kinds) -> Self:
        return cls(**_fields(part))

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        columns: Columns = {}
        category, weights = self.listed[items[0]], self.weights[items[0]]  # behind an item's: of weight 0
        for half_life, profile in zip(PROFILES, self._profiles(asked), strict=True):
            overlap = np.einsum("ck,ck->c", profile[category], weights)
            columns[f"categories_{half_life}"] = overlap[None]
        for graph in self.graphs.values():
            columns |= graph.columns(asked, items)
        return columns | self._years(asked, items)

    def _profiles(self, asked: Asked) -> np.ndarray:
        """(half-lives of PROFILES, categories) float32 of unit length; `Kinds.profile`."""
        assert isinstance(asked, One)
        column, value, lengths = rows_of(self.categories, asked.index)
        found = np.empty((len(PROFILES), max(1, self.categories.shape[1])), np.float32)
        for place, half_life in enumerate(PROFILES):
            cells = value * asked.weight[HALF_LIVES.index(half_life)].repeat(lengths)
            found[place] = np.bincount(column, cells, minlength=found.shape[1])
        return unit(found)

    def _years(self, asked: Asked, items: np.ndarray) -> Columns:
        assert isinstance(asked, One)
        had, recent = self.year[asked.index], asked.weight[HALF_LIVES.index(5)]
        known = np.isfinite(had)
        total = recent[known].sum(dtype=np.float64)
        mean = recent[known] @ had[known] / total if total > 0 else np.nan
        of_item = self.year[items]
        if not np.isfinite(of_item).any():  # often no item has one
            return dict.fromkeys(YEARS, np.zeros(items.shape, np.float32))
        gap = np.nan_to_num((of_item - mean) / 10).astype(np.float32)
        now = 1970 + asked.points.time / (MICROSECONDS_A_DAY * 365.2425)
        age = np.nan_to_num(now[:, None] - of_item).astype(np.float32)
        return dict(zip(YEARS, (gap, np.abs(gap), np.log1p(np.maximum(age, 0))), strict=True))


def union(
    retrieved: Retrieved, allowed: Callable[[np.ndarray], np.ndarray], most: int, space: Space
) -> np.ndarray:
    """(at most `most`,) int32 candidates as pipeline.models.candidates.union has them, of one point.

    `allowed`: (n,) items -> (n,) bool; `space`: of all items.
    """
    lists = [items[0] for items in retrieved.values()]
    longest = max(map(len, lists))
    table = np.full((longest, len(lists)), -1, np.int32)
    for place, items in enumerate(lists):
        table[: len(items), place] = items
    items = table.ravel()  # every retriever's best come first
    items = space.different(items[items >= 0])
    return items[allowed(items)][:most]


def _fields(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part) if field.init}
