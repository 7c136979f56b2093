"""What items are: their categories, years and knowledge graph beside those of the history."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue
from pipeline.models.asked import Asked
from pipeline.models.content import category_matrix, rarity, years
from pipeline.models.graph import Graph
from pipeline.models.keywords import Keywords
from pipeline.models.modalities import Modality, modalities
from pipeline.models.pairs import Columns

MOST = 16  # categories of an item that are compared, the rarest first


@dataclass(frozen=True)
class Kinds:
    categories: sp.csr_matrix  # (items, categories) float32, rows of unit length, weighted by rarity
    listed: np.ndarray  # (items, at most MOST) int32 category, -1: no more
    weights: np.ndarray  # the same, float32: their cells
    year: np.ndarray  # (items,) float64, NaN where unknown
    graph: Graph | None = None  # None: there are no relations, or the model knows of none
    keywords: Keywords | None = None  # likewise
    modalities: tuple[Modality, ...] = ()

    @classmethod
    def of(cls, catalogue: Catalogue, features: list[str] | None = None) -> Kinds:
        """`features`: of a model that is there already; what it does not know is left out."""
        matrix = category_matrix(catalogue)
        weight = rarity(np.asarray(matrix.sum(axis=0)).ravel(), len(catalogue))
        weighted = sp.csr_matrix(matrix @ sp.diags_array(weight.astype(np.float32)))
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)
        unit = sp.csr_matrix(sp.diags_array(scale) @ weighted, dtype=np.float32)
        graph, words = _known(Graph, catalogue, features), _known(Keywords, catalogue, features)
        further = tuple(modalities(catalogue, features))
        return cls(unit, *_listed(unit), years(catalogue), graph, words, further)

    @property
    def further(self) -> dict[str, tuple[str, ...]]:
        """Signals that are the data's own -> the names of their columns."""
        found = {name: one.features for name, one in self.graphs.items()}
        return found | {each.label: each.features for each in self.modalities}

    def only(self, further: Collection[str]) -> Kinds:
        """With these alone of `further`."""
        kept = tuple(each for each in self.modalities if each.label in further)
        graph = self.graph if "graph" in further else None
        words = self.keywords if "keywords" in further else None
        return replace(self, graph=graph, keywords=words, modalities=kept)

    @property
    def graphs(self) -> dict[str, Graph]:
        """By the names of `further`; these bring columns and no candidates."""
        found = {"graph": self.graph, "keywords": self.keywords}
        return {name: one for name, one in found.items() if one is not None}

    def profile(self, asked: Asked, half_life: int) -> np.ndarray:
        """(points, categories) float32 of unit length: what the history is made of."""
        profile = (asked.weights[half_life] @ self.categories).toarray()
        norms = np.linalg.norm(profile, axis=1, keepdims=True)
        return profile / np.where(norms > 0, norms, 1)

    def columns(self, asked: Asked, items: np.ndarray) -> Columns:
        columns: Columns = {}
        for half_life in (5, 30):
            columns[f"categories_{half_life}"] = self._overlap(self.profile(asked, half_life), items)
        for graph in self.graphs.values():
            columns |= graph.columns(asked, items)
        return columns | self._years(asked, items)

    def _overlap(self, profile: np.ndarray, items: np.ndarray) -> np.ndarray:
        out = np.zeros(items.shape, np.float32)
        row, safe = np.arange(len(items))[:, None], np.maximum(items, 0)
        for place in range(self.listed.shape[1]):
            category = self.listed[safe, place]
            out += np.where(
                category >= 0, profile[row, np.maximum(category, 0)] * self.weights[safe, place], 0
            )
        return np.where(items >= 0, out, 0)

    def _years(self, asked: Asked, items: np.ndarray) -> Columns:
        known = np.isfinite(self.year)
        year = np.where(known, self.year, 0)
        recent = asked.weights[5]
        total = recent @ known.astype(np.float64)
        mean = np.where(total > 0, (recent @ year) / np.where(total > 0, total, 1), np.nan)
        of_item = np.where(items >= 0, self.year[np.maximum(items, 0)], np.nan)
        gap = np.nan_to_num((of_item - mean[:, None]) / 10).astype(np.float32)
        now = 1970 + asked.points.time / (MICROSECONDS_A_DAY * 365.2425)
        age = np.nan_to_num(now[:, None] - of_item).astype(np.float32)
        return {"year_gap": gap, "year_distance": np.abs(gap), "release_age": np.log1p(np.maximum(age, 0))}


G = TypeVar("G", bound=Graph)


def _known(kind: type[G], catalogue: Catalogue, features: list[str] | None) -> G | None:
    """`features`: as for `Kinds.of`."""
    found = kind.of(catalogue)
    if features is None:
        return found
    known = any(name.startswith(kind.prefix) for name in features)
    return (found or kind.none(len(catalogue))) if known else None


def _listed(unit: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """(items, at most MOST) int32 and float32: each item's categories by weight."""
    lengths = np.diff(unit.indptr)
    width = int(min(MOST, lengths.max(initial=0)))
    out, weights = np.full((unit.shape[0], width), -1, np.int32), np.zeros((unit.shape[0], width), np.float32)
    row = np.repeat(np.arange(unit.shape[0]), lengths)
    order = np.lexsort((unit.indices, -unit.data, row))
    place = np.arange(unit.nnz) - np.repeat(unit.indptr[:-1], lengths)
    kept = place < width
    cells = row[order][kept], place[kept]
    out[cells], weights[cells] = unit.indices[order][kept], unit.data[order][kept]
    return out, weights
