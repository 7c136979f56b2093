"""What can be scored from items alone: overlap of categories, closeness of item vectors.

In: the catalogue's categories, or one vector per item; the weighted history of each point.
Out: (points, items) float32 scores; NaN where an item or a whole history lacks categories or a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.models.baselines import blocks

ROUNDING = 1e-5  # share of a vector's length below which what is left of it says nothing


def category_matrix(catalogue: Catalogue) -> sp.csr_matrix:
    """(items, categories) float32, 1 where an item has a category; no column if there are none."""
    if tables.CATEGORIES not in catalogue.items:
        return sp.csr_matrix((len(catalogue), 0), dtype=np.float32)
    listed = catalogue.items[tables.CATEGORIES].reset_index(drop=True).explode().dropna()
    codes, names = pd.factorize(listed, sort=True)
    cells = (np.ones(len(listed), np.float32), (listed.index.to_numpy(), codes))
    matrix = sp.csr_matrix(cells, shape=(len(catalogue), len(names)))
    matrix.data[:] = 1  # a category written twice counts once
    return matrix


def rarity(having: np.ndarray, items: int) -> np.ndarray:
    """log(2 / (share + 1 / items)): what it says of an item to have what `having` of all `items` have, an
    inverse document frequency that is 0 for what nearly all have."""
    share = having / max(1, items)
    return np.asarray(np.log(2 / (share + 1 / max(1, items))))


def category_names(catalogue: Catalogue) -> list[str]:
    """The columns of category_matrix."""
    if tables.CATEGORIES not in catalogue.items:
        return []
    return [
        str(name)
        for name in np.unique(catalogue.items[tables.CATEGORIES].explode().dropna().to_numpy(dtype=str))
    ]


def years(catalogue: Catalogue) -> np.ndarray:
    """(items,) float64, NaN where unknown."""
    if "year" not in catalogue.items:
        return np.full(len(catalogue), np.nan)
    return catalogue.items["year"].to_numpy(dtype=np.float64, na_value=np.nan)


@dataclass(frozen=True)
class Content:
    """Mean Jaccard similarity of categories to the weighted history, over distinct sets of categories."""

    sets: sp.csr_matrix  # (sets, categories): the distinct sets
    set_of: np.ndarray  # (items,) index into sets; -1 without categories

    @classmethod
    def of(cls, categories: sp.csr_matrix) -> Content:
        categories.sort_indices()
        keys = np.array(
            [row.tobytes() for row in np.split(categories.indices, categories.indptr[1:-1])], object
        )
        codes, _ = pd.factorize(keys)
        codes = codes.astype(np.int64)
        first = np.unique(codes, return_index=True)[1]
        empty = np.diff(categories.indptr) == 0
        return cls(categories[first], np.where(empty, -1, codes))

    def similarity(self, left: slice) -> np.ndarray:
        """(left sets, sets) float32 Jaccard similarity |A and B| / |A or B|; 0 for two empty sets."""
        both = (self.sets[left] @ self.sets.T).toarray()
        sizes = np.diff(self.sets.indptr).astype(np.float32)
        return both / np.maximum(sizes[left, None] + sizes[None, :] - both, 1)

    def score(self, weights: sp.csr_matrix) -> np.ndarray:
        """(points, items) weights -> (points, items); NaN: items and histories without categories."""
        items, count = len(self.set_of), self.sets.shape[0]
        has = np.flatnonzero(self.set_of >= 0)
        gather = sp.csr_matrix((np.ones(len(has), np.float32), (has, self.set_of[has])), (items, count))
        history = (weights @ gather).tocsc()
        by_set = np.zeros((weights.shape[0], count), np.float32)
        for block in blocks(count, count):
            by_set += history[:, block] @ self.similarity(block)
        total = np.asarray(history.sum(axis=1)).ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            by_set /= total[:, None].astype(np.float32)
        scores = by_set[:, self.set_of] if count else np.zeros((weights.shape[0], items), np.float32)
        scores[:, self.set_of < 0] = np.nan
        scores[total <= 0] = np.nan
        return scores


@dataclass(frozen=True)
class VectorScorer:
    """Cosine of centred item vectors to the weighted mean of the history's."""

    vectors: np.ndarray  # (items, d) float32, unit length; zero rows cannot be scored

    @classmethod
    def of(cls, vectors: np.ndarray) -> VectorScorer:
        """Subtract the mean vector of the items that have one (what all texts share), then normalise.

        What is left of vectors that are all alike is the mean's rounding: no direction.
        """
        rows, out = np.flatnonzero(vectors.any(axis=1)), np.zeros(vectors.shape, np.float32)
        mean = vectors[rows].mean(axis=0) if len(rows) else 0
        for part in blocks(len(rows), vectors.shape[1]):
            own = vectors[rows[part]]
            centred = own - mean
            lengths, norms = (np.linalg.norm(each, axis=1, keepdims=True) for each in (own, centred))
            differs = norms > ROUNDING * lengths
            out[rows[part]] = np.where(differs, centred / np.where(differs, norms, 1), 0)
        return cls(out)

    def score(self, weights: sp.csr_matrix) -> np.ndarray:
        user = weights @ self.vectors
        norms = np.linalg.norm(user, axis=1, keepdims=True)
        scores = (user / np.where(norms > 0, norms, 1)) @ self.vectors.T
        scores[:, self._without] = np.nan
        scores[norms[:, 0] == 0] = np.nan
        return scores

    @cached_property
    def _without(self) -> np.ndarray:
        """Numbers of the items without a vector."""
        return np.flatnonzero(~self.vectors.any(axis=1))
