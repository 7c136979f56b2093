"""What a knowledge graph says: neighbours that an item shares with those of the history, the rare ones most.

Neighbours are the entities that relations join to an item, in either direction; an item that is a neighbour
itself is its own, so that a link from item to item counts. Weighted by rarity, rows of unit length: a pair's
score is the cosine between the item and the recency-weighted history, as of categories (models/kinds.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.errors import DataError
from pipeline.models.asked import Asked
from pipeline.models.content import rarity
from pipeline.models.pairs import Columns

HALF_LIVES = (5, 30)
MOST = 32  # neighbours of an item that are compared, the rarest first
PREFIX = "graph_"  # of its columns
PREPOSITIONS = (" by", " in", " of", " from", " for", " at", " with", " to", " on")  # directed by the same as


@dataclass(frozen=True)
class Graph:
    neighbours: sp.csr_matrix  # (items, entities) float32, rows of unit length, weighted by rarity
    relation: np.ndarray  # (cells of `neighbours`,) int32 place in `words`; -1: the item itself
    words: list[str]
    entity_item: np.ndarray  # (entities,) int32 item that the entity is, -1: none
    names: np.ndarray  # (entities,) object, str

    prefix: ClassVar[str] = PREFIX  # of its columns
    links: ClassVar[bool] = True  # an entity with the id of an item is that item

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(f"{self.prefix}{half}" for half in HALF_LIVES)

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self | None:
        """None where no item has a neighbour that another one shares."""
        return cls.joined(catalogue, _edges(catalogue))

    @classmethod
    def joined(cls, catalogue: Catalogue, edges: pd.DataFrame) -> Self | None:
        """`edges`: item (place), relation, entity."""
        names, ids = np.unique(edges["entity"].to_numpy(dtype=str)), catalogue.ids.astype(str)
        entity_item = catalogue.index(names) if cls.links else np.full(len(names), -1, np.int32)
        own = np.flatnonzero(entity_item >= 0)
        item = np.concatenate([edges["item"].to_numpy(), entity_item[own]])
        entity = np.concatenate([np.searchsorted(names, edges["entity"].to_numpy(dtype=str)), own])
        codes, words = pd.factorize(edges["relation"], sort=True)
        relation = np.concatenate([codes, np.full(len(own), -1)]).astype(np.int32)
        # Of several relations to one entity the first by name; the item itself goes last.
        order = np.lexsort((np.where(relation < 0, len(words), relation), entity, item))
        item, entity, relation = item[order], entity[order], relation[order]
        first = np.r_[True, (np.diff(item) != 0) | (np.diff(entity) != 0)][: len(item)]
        item, entity, relation = item[first], entity[first], relation[first]
        shared = np.bincount(entity, minlength=len(names))
        kept = shared[entity] > 1
        if not kept.any():
            return None
        rare = rarity(shared, len(ids))
        item, entity, relation = _rarest(item[kept], entity[kept], relation[kept], rare)
        weight = rare[entity]
        weight /= np.sqrt(np.bincount(item, weight**2, minlength=len(ids)))[item]
        indptr = np.r_[0, np.cumsum(np.bincount(item, minlength=len(ids)))]
        cells = (weight.astype(np.float32), entity.astype(np.int32), indptr)
        matrix = sp.csr_matrix(cells, shape=(len(ids), len(names)))
        return cls(matrix, relation, [_plain(str(word)) for word in words], entity_item, names.astype(object))

    @classmethod
    def none(cls, items: int) -> Self:
        """Of a model that knows a graph, over items without one: no item has a neighbour."""
        nothing = np.zeros(0, np.int32)
        return cls(sp.csr_matrix((items, 0), dtype=np.float32), nothing, [], nothing, np.zeros(0, object))

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        found = self._close([asked.weights[half] for half in HALF_LIVES], items)
        return dict(zip(self.features, found, strict=True))

    def _close(self, weights: list[sp.csr_matrix], items: np.ndarray) -> np.ndarray:
        """(kinds of weights, points, candidates) float32 cosines."""
        out = np.zeros((len(weights), *items.shape), np.float32)
        row = np.zeros(
            (self.neighbours.shape[1], len(weights)), np.float32
        )  # one point's, written and cleared
        profiles = [sp.csr_matrix(each @ self.neighbours) for each in weights]
        for point, listed in enumerate(items):
            spans = [slice(*each.indptr[point : point + 2]) for each in profiles]
            for kind, (profile, span) in enumerate(zip(profiles, spans, strict=True)):
                norm = float(np.linalg.norm(profile.data[span]))
                row[profile.indices[span], kind] = profile.data[span] / (norm or 1)
            if any(span.start < span.stop for span in spans):
                out[:, point] = self._of_point(row, listed)
            for profile, span in zip(profiles, spans, strict=True):
                row[profile.indices[span]] = 0
        return out

    def _of_point(self, row: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(kinds, candidates) sums over each one's neighbours."""
        entity = self._listed[0][items]
        return np.einsum("cn,cnk->kc", self._listed[1][items], row[entity])

    @cached_property
    def _listed(self) -> tuple[np.ndarray, np.ndarray]:
        """(items + 1, at most MOST) int32 neighbours and their float32 weights, 0 behind and of -1."""
        lengths = np.diff(self.neighbours.indptr)
        shape = len(lengths) + 1, int(lengths.max(initial=1))
        entity, weight = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        item = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(item)) - np.repeat(self.neighbours.indptr[:-1], lengths)
        entity[item, place], weight[item, place] = self.neighbours.indices, self.neighbours.data
        return entity, weight

    def shared(self, history: np.ndarray, item: int) -> tuple[str, int] | None:
        """(how, which item of the history): the rarest neighbour that both have; None: they share none."""
        found = self.rarest(history, item)
        if found is None:
            return None
        place, near = found
        entity = self.neighbours.indices[place]
        if near == self.entity_item[entity] or self.entity_item[entity] == item:
            return "linked with", near
        word = self.words[self.relation[place]]
        return (f"{word} the same as" if word.endswith(PREPOSITIONS) else f"same {word} as"), near

    def rarest(self, history: np.ndarray, item: int) -> tuple[int, int] | None:
        """(cell of `neighbours` of the rarest one that both have, which item of the history); None: none."""
        mine = slice(self.neighbours.indptr[item], self.neighbours.indptr[item + 1])
        entity, weight = self.neighbours.indices[mine], self.neighbours.data[mine]
        theirs = sp.csr_matrix(self.neighbours[history][:, entity])
        had = np.diff(theirs.tocsc().indptr) > 0
        if not had.any():
            return None
        best = int(np.where(had, weight, -1).argmax())
        return mine.start + best, int(history[theirs[:, [best]].nonzero()[0][-1]])


def _edges(catalogue: Catalogue) -> pd.DataFrame:
    """item (place), relation, entity: every cell of the two lists. Raises DataError if they do not pair."""
    items = catalogue.items
    if not set(tables.GRAPH) <= set(items):
        return pd.DataFrame({"item": np.zeros(0, np.int64), "relation": [], "entity": []})
    relations, entities = (items[name].map(as_list) for name in tables.GRAPH)
    lengths = relations.map(len).to_numpy(dtype=int)
    if (wrong := np.flatnonzero(lengths != entities.map(len))).size:
        raise DataError(
            f"items, columns {' and '.join(tables.GRAPH)}: item {catalogue.ids[wrong[0]]!r} has lists of "
            "different lengths: give each entity its relation"
        )
    flat = {
        "item": np.repeat(np.arange(len(items)), lengths),
        "relation": [str(cell) for cells in relations for cell in cells],
        "entity": [str(cell) for cells in entities for cell in cells],
    }
    return pd.DataFrame(flat)


def _rarest(
    item: np.ndarray, entity: np.ndarray, relation: np.ndarray, rare: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each item the MOST rarest neighbours, item by item in order of the entity."""
    order = np.lexsort((entity, -rare[entity], item))
    start = np.searchsorted(item[order], item[order])
    kept = np.sort(order[np.arange(len(order)) - start < MOST])
    return item[kept], entity[kept], relation[kept]


def as_list(cell: object) -> list[object]:
    return list(cell) if isinstance(cell, list | tuple | np.ndarray) else []


def _plain(relation: str) -> str:
    """`http://x/made_by` and `film.film.made_by` as `made by`."""
    return re.split(r"[./#:]", relation.rstrip("./#:"))[-1].replace("_", " ").strip() or relation
