"""What texts say: closeness of an item's text to those of the history, and what texts let expect of cold
items.

Vectors are the encoder's, centred and of unit length; an item without text has a zero row. For cold items a
ridge regression from text, categories and age to iALS' vectors and to popularity stands in (CB2CF, Barkan
et al. 2019); for known ones it predicts out of fold, so that both kinds look alike. Retrievers `text`,
`text_of_cold`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.data.histories import Catalogue
from pipeline.models.asked import Asked
from pipeline.models.binding import Arrays
from pipeline.models.collaborative import Collaborative
from pipeline.models.content import VectorScorer, category_matrix, category_names, years
from pipeline.models.nearest import Nearest
from pipeline.models.pairs import Columns, Retrieved, gathered, product, products, standardised
from pipeline.models.ridge import Ridge

LAST_ITEMS = 8
NARROW = 96  # dimensions in which pairs are compared
MOST_CATEGORIES = 200
SPANS = (1.0, 3.0, 10.0, 30.0)  # years over which newness fades
CATEGORY_WEIGHT = 0.5
FADING = 0.7  # power of 1 + rows by which an item's text columns fall


@dataclass(frozen=True)
class Space:
    """Item vectors in which text is compared."""

    vectors: np.ndarray  # (items, width) float32 centred unit vectors; zero rows: no text
    centre: np.ndarray  # (width,) what was subtracted

    @classmethod
    def of(cls, vectors: np.ndarray) -> Space | None:
        """None where no item has a text, or all have the same: neither tells one from another."""
        there, own = vectors.any(axis=1), VectorScorer.of(vectors).vectors
        return cls(own, vectors[there].mean(axis=0)) if own.any() else None


@dataclass(frozen=True)
class Facts:
    """What is known of an item beside its rows, as numbers: its text, its frequent categories, its age."""

    categories: list[str]
    newest_year: float

    @classmethod
    def of(cls, catalogue: Catalogue) -> Facts:
        names = category_names(catalogue)
        frequent = np.argsort(-np.asarray(category_matrix(catalogue).sum(axis=0)).ravel(), kind="stable")
        newest = float(np.nanmax(years(catalogue), initial=-np.inf))
        return cls(
            [names[place] for place in frequent[:MOST_CATEGORIES]], newest if np.isfinite(newest) else 0.0
        )

    def matrix(self, vectors: np.ndarray, catalogue: Catalogue) -> np.ndarray:
        """(items, width) float32."""
        width = vectors.shape[1]
        out = np.zeros((len(catalogue), width + len(self.categories) + len(SPANS)), np.float32)
        out[:, :width] = vectors
        place = {name: number for number, name in enumerate(category_names(catalogue))}
        everything = category_matrix(catalogue).tocsc()
        for number, name in enumerate(self.categories):
            if name in place:
                of_name = everything[:, [place[name]]].toarray().ravel()
                out[:, width + number] = CATEGORY_WEIGHT * of_name
        year = years(catalogue)
        age = np.where(np.isfinite(year), self.newest_year - np.nan_to_num(year), np.inf)
        out[:, width + len(self.categories) :] = np.exp(-np.maximum(age, 0)[:, None] / np.array(SPANS))
        return out


@dataclass(frozen=True)
class Text:
    vectors: np.ndarray  # (items, width) float32
    expected: np.ndarray  # (items, factors) float32, of iALS, by what texts let expect
    popularity: np.ndarray  # (items,) float32, log1p of the fit's rows, likewise
    facts: Facts
    ridge: Ridge = field(repr=False)
    _kept: dict[str, Nearest] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def fit(cls, vectors: np.ndarray, catalogue: Catalogue, collaborative: Collaborative) -> Text:
        facts = Facts.of(catalogue)
        popularity = np.log1p(collaborative.count)[:, None]
        target = np.concatenate([collaborative.ials.vectors, popularity], axis=1)
        ridge, found = Ridge.fit(facts.matrix(vectors, catalogue), target, collaborative.ials.known)
        return cls(vectors, np.ascontiguousarray(found[:, :-1]), found[:, -1].copy(), facts, ridge)

    def retrieve(self, asked: Asked, n: int, ials: np.ndarray, cold: np.ndarray) -> Retrieved:
        """`ials`: (points, factors) users; `cold`: (items,) bool."""
        users = unit(asked.weights[5] @ self._narrow)
        lists = {"text": self.nearest.best(users, n)}
        lists["text"][~users.any(axis=1)] = -1
        lists["text_of_cold"] = self.nearest_of_cold(cold).best(ials, n)
        lists["text_of_cold"][~ials.any(axis=1)] = -1
        return lists

    def columns(
        self, asked: Asked, items: np.ndarray, ials: np.ndarray, cold: np.ndarray, rows: np.ndarray
    ) -> Columns:
        """`rows`: (points, candidates) log1p of the rows that the live state has of each item.

        Every column fades with them: what was done with an item says more than its text, and a scorer that
        may use the texts of known items learns chance from them (docs/log.md).
        """
        columns = self._unfaded(asked, items, ials, cold)
        fading = np.exp(-FADING * rows)
        return {name: column * fading for name, column in columns.items()}

    def _unfaded(self, asked: Asked, items: np.ndarray, ials: np.ndarray, cold: np.ndarray) -> Columns:
        columns: Columns = {}
        vectors = self._narrow
        means = [unit(weights @ vectors) for weights in (asked.weights[5], asked.weights[30], asked.plain)]
        # The newest items are further users: their vectors meet the candidates' in the same pass.
        users = np.concatenate([np.stack(means, axis=1), newest(asked, vectors)], axis=1)
        close = products(users, vectors, items)
        columns["text_5"], columns["text_30"], columns["text_mean"] = close[:3]
        columns["text_max"] = close[3:].max(axis=0)
        imputed = standardised(product(ials, self.expected, items), items, asked.width)
        cold_pair = gathered(cold.astype(np.float32), items)
        columns |= {"imputed_ials": imputed, "imputed_popularity": gathered(self.popularity, items)}
        columns["imputed_ials_of_cold"] = imputed * cold_pair
        columns["text_of_cold"] = columns["text_5"] * cold_pair
        return columns

    @cached_property
    def there(self) -> np.ndarray:
        """(items,) bool: has a text."""
        return np.asarray(self.vectors.any(axis=1))

    @cached_property
    def nearest(self) -> Nearest:
        return Nearest(self._narrow, self.there)

    def nearest_of_cold(self, cold: np.ndarray) -> Nearest:
        if "cold" not in self._kept:  # cold items are those of the one fit
            self._kept["cold"] = Nearest(self.expected, cold & self.there)
        return self._kept["cold"]

    @cached_property
    def _narrow(self) -> np.ndarray:
        """(items, at most NARROW): the directions in which texts differ most; cosines nearly stay."""
        return narrowed(self.vectors)

    def arrays(self) -> Arrays:
        return {
            "vectors": self.vectors,
            "expected": self.expected,
            "popularity": self.popularity,
            **self.ridge.arrays(),
        }

    @classmethod
    def bound(
        cls,
        arrays: Arrays,
        place: np.ndarray,
        catalogue: Catalogue,
        vectors: np.ndarray,
        facts: Facts,
        same: np.ndarray,
    ) -> Text:
        """`vectors`: of the catalogue's texts; `same`: (saved items,) bool, whose text is still the same."""
        ridge = Ridge.of(arrays)
        found = np.zeros((len(catalogue), ridge.weights.shape[1]), np.float32)
        known = place[same]
        new = np.setdiff1d(np.arange(len(catalogue)), known)
        if len(new):
            limits = catalogue.available_from[new], catalogue.available_until[new]
            of_new = Catalogue(catalogue.items.iloc[new].reset_index(drop=True), *limits)
            found[new] = ridge.predict(facts.matrix(vectors[new], of_new))
        found[known] = np.concatenate([arrays["expected"], arrays["popularity"][:, None]], axis=1)[same]
        return cls(vectors, np.ascontiguousarray(found[:, :-1]), found[:, -1].copy(), facts, ridge)


def narrowed(vectors: np.ndarray) -> np.ndarray:
    """(items, at most NARROW) of (items, width) unit vectors or zero rows."""
    if vectors.shape[1] <= NARROW:
        return vectors
    _, axes = np.linalg.eigh(vectors.T @ vectors)
    return unit(vectors @ axes[:, -NARROW:]).astype(np.float32)


def newest(asked: Asked, vectors: np.ndarray) -> np.ndarray:
    """(points, LAST_ITEMS, width) of the newest items of the history, zeros where it has no more."""
    points = asked.points
    row = points.stop[:, None] - 1 - np.arange(LAST_ITEMS)
    there = row >= points.start[:, None]
    if not len(points.log):
        return np.zeros((*row.shape, vectors.shape[1]), np.float32)
    return vectors[points.log.item[np.where(there, row, 0)]] * there[:, :, None]


def unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
