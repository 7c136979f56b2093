"""What other vectors of items say (columns `*_vector`: images, sounds, ...), each a space of its own.

As texts are (models/text.py): centred unit vectors, compared with the recency-weighted history and with its
newest items, fading with what is known of an item by its rows. An item without a vector scores zero.
Retriever and columns `vector_<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Catalogue
from pipeline.models.asked import Asked
from pipeline.models.content import VectorScorer
from pipeline.models.nearest import Nearest
from pipeline.models.pairs import Columns, Retrieved, products
from pipeline.models.text import FADING, narrowed, newest, unit

PREFIX = "vector_"  # of its columns
HALF_LIVES = (5, 30)
# What figures call other signals: a modality of such a name (`graph_vector`) is called by its whole column.
TAKEN = frozenset(
    ("", "text", "texts", "categories", "graph", "keywords", "sentiment", "live_state", "sequence", "repeats")
)


@dataclass(frozen=True)
class Modality:
    name: str
    vectors: np.ndarray  # (items, width) float32 centred unit vectors; zero rows: none

    @classmethod
    def of(cls, name: str, cells: pd.Series) -> Modality:
        """`cells`: lists of numbers, of one length; anything else is none."""
        there = np.flatnonzero([isinstance(cell, list | np.ndarray) for cell in cells])
        width = len(cells.iloc[there[0]]) if len(there) else 1
        vectors = np.zeros((len(cells), width), np.float32)
        if len(there):
            vectors[there] = np.array([cells.iloc[place] for place in there], np.float32)
        return cls(name, narrowed(VectorScorer.of(vectors).vectors))

    @property
    def label(self) -> str:
        """Its name among all signals."""
        return label(self.name)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its columns."""
        return tuple(f"{PREFIX}{self.name}_{last}" for last in (*HALF_LIVES, "max"))

    def retrieve(self, asked: Asked, n: int) -> Retrieved:
        users = unit(asked.weights[5] @ self.vectors)
        found = self.nearest.best(users, n)
        found[~users.any(axis=1)] = -1
        return {f"{PREFIX}{self.name}": found}

    def columns(self, asked: Asked, items: np.ndarray, rows: np.ndarray) -> Columns:
        """`rows`: (points, candidates) log1p of the rows that the live state has of each item."""
        means = np.stack([unit(asked.weights[half] @ self.vectors) for half in HALF_LIVES], axis=1)
        close = products(np.concatenate([means, newest(asked, self.vectors)], axis=1), self.vectors, items)
        fading = np.exp(-FADING * rows)
        of_history = *close[: len(HALF_LIVES)], close[len(HALF_LIVES) :].max(axis=0)
        return {name: column * fading for name, column in zip(self.features, of_history, strict=True)}

    @cached_property
    def nearest(self) -> Nearest:
        return Nearest(self.vectors, np.asarray(self.vectors.any(axis=1)))


def label(name: str) -> str:
    """What figures call the modality of a name."""
    return f"{name}{tables.VECTOR}" if name in TAKEN else name


def modalities(catalogue: Catalogue, features: Iterable[str] | None = None) -> list[Modality]:
    """By name; `features`: of a model that is there already, whose modalities these are, empty if need be."""
    columns = {
        name.removesuffix(tables.VECTOR): name for name in catalogue.items if name.endswith(tables.VECTOR)
    }
    names = sorted(columns)
    if features is not None:
        last = f"_{HALF_LIVES[0]}"
        known = [name for name in features if name.startswith(PREFIX) and name.endswith(last)]
        names = sorted(name.removeprefix(PREFIX).removesuffix(last) for name in known)
    nothing = pd.Series([None] * len(catalogue), dtype=object)
    found = [Modality.of(name, catalogue.items.get(columns.get(name, ""), nothing)) for name in names]
    return [each for each in found if features is not None or each.vectors.any()]


def alike(found: Iterable[Modality], history: np.ndarray, item: int, least: float) -> tuple[str, int] | None:
    """(the modality in which the item is nearest to one of the history, which one); None: none is above."""
    best, told = least, None
    for modality in found:
        close = modality.vectors[history] @ modality.vectors[item]
        if close.max(initial=0) > best:
            best, told = float(close.max()), (modality.name, int(history[close.argmax()]))
    return told
