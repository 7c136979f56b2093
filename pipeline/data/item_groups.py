"""Groups of items: by how popular and how old they are, by category, and by who provides them.

A `Grouping` gives each item a share of every group: all of one group,
or an equal part of each of its categories (Steck 2018, p(g|i)). Items of which nothing is known are in none.

popularity - by rows in train: the top tenth of the items, the next four tenths, the lower half, cold (none)
age        - quarters of the catalogue by `year`, else by an item's first row in train
categories - the columns that `items` calls so
PROVIDERS  - the first of these columns that `items` has; the rows of the smaller ones stand together
and columns of items that preprocess.never_features names
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.data.items import FIRST_SEEN

PROVIDERS = ("provider", "seller", "publisher", "author", "artist", "brand")
MOST_GROUPS = 20  # of a grouping; the rest are OTHERS
OTHERS = "others"
POPULARITY = {
    "top tenth": 0.1,
    "next four tenths": 0.5,
    "lower half": 1.0,
}  # group: up to this share of items
COLD = "cold"
QUARTERS = ("oldest quarter", "second quarter", "third quarter", "newest quarter")


@dataclass(frozen=True)
class Grouping:
    names: list[str]
    shares: sp.csr_matrix  # (items + 1, groups) float; the last row, of no item (-1), is empty

    @classmethod
    def of(cls, names: list[str], item: np.ndarray, group: np.ndarray, items: int) -> Grouping:
        """(pairs,) item and group; an item in several groups has an equal part in each."""
        times = np.bincount(item, minlength=items)
        weight = 1 / times[item]
        return cls(names, sp.csr_matrix((weight, (item, group)), shape=(items + 1, len(names))))

    def exposure(self, listed: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(points, k) lists -> (points, groups) share of the list's attention; NaN where no item has a group.

        `weights`: (k,) attention of each place.
        """
        point, place = np.nonzero(listed[:, : len(weights)] >= 0)
        cells = (weights[place], (point, listed[point, place]))
        found = sp.csr_matrix(cells, shape=(len(listed), self.shares.shape[0])) @ self.shares
        return _shares(found.toarray())


def groupings(
    catalogue: Catalogue, popularity: np.ndarray, withheld: pd.DataFrame | None = None
) -> dict[str, Grouping]:
    """Name -> the groups; `popularity`: (items,) rows in train. Of fewer than two groups there is none."""
    found = {"popularity": by_popularity(popularity)}
    if (ages := by_age(catalogue)) is not None:
        found["age"] = ages
    if tables.CATEGORIES in catalogue.items:
        found[tables.CATEGORIES] = _by_cells(catalogue.items[tables.CATEGORIES], popularity)
    provider = next((name for name in PROVIDERS if name in catalogue.items), None)
    if provider is not None:
        found[provider] = _by_cells(catalogue.items[provider], popularity)
    if withheld is not None:
        cells = withheld.set_index(tables.ITEM).reindex(catalogue.ids)
        found |= {
            name: _by_cells(cells[name], popularity) for name in cells if not name.endswith(tables.VECTOR)
        }
    return {name: one for name, one in found.items() if len(one.names) > 1}


def by_popularity(popularity: np.ndarray) -> Grouping:
    known = np.flatnonzero(popularity > 0)
    place = np.empty(len(known))
    place[np.argsort(-popularity[known], kind="stable")] = np.arange(len(known)) / max(len(known), 1)
    group = np.full(len(popularity), len(POPULARITY))
    group[known] = np.searchsorted(list(POPULARITY.values()), place, side="right")
    return Grouping.of([*POPULARITY, COLD], np.arange(len(group)), group, len(group))


def by_age(catalogue: Catalogue) -> Grouping | None:
    for column in (tables.YEAR, FIRST_SEEN):
        if column not in catalogue.items:
            continue
        cells = catalogue.items[column]
        known = np.flatnonzero(cells.notna())
        age = cells.iloc[known].astype("int64").to_numpy()
        if len(np.unique(age)) < len(QUARTERS):
            continue
        group = np.searchsorted(np.quantile(age, [0.25, 0.5, 0.75]), age, side="left")
        return Grouping.of(list(QUARTERS), known, group, len(catalogue))
    return None


def _by_cells(cells: pd.Series, popularity: np.ndarray) -> Grouping:
    """By the texts of a column, or of its lists: the largest by rows in train, and OTHERS."""
    pairs = cells.reset_index(drop=True).explode().dropna().astype("str")
    pairs = pairs[pairs != ""]
    item = pairs.index.to_numpy()
    rows = pd.Series(popularity[item] + 1e-9, pairs.to_numpy()).groupby(level=0).sum()  # ties: by name
    order = rows.sort_values(ascending=False, kind="stable").index
    names = list(order) if len(order) <= MOST_GROUPS else [*order[: MOST_GROUPS - 1], OTHERS]
    group = np.minimum(pd.Index(order).get_indexer(pairs), len(names) - 1)
    return Grouping.of(names, item, group, len(cells))


def _shares(values: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; NaN for a row without anything."""
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)
