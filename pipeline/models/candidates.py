"""The first of two steps to a list: items that some retriever brings, at most so many a point.

Each retriever names items best first; of their union the candidates are those with the best place in any of
them. Left out are the items of the strict history and those not on offer at the moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.data.histories import Catalogue, Points
from pipeline.models.pairs import Retrieved
from pipeline.models.ranking import listable


def union(retrieved: Retrieved, points: Points, catalogue: Catalogue, most: int) -> np.ndarray:
    """(points, at most `most`) int32 candidates by their best place in any list, -1 behind."""
    lists = list(retrieved.values())
    items = np.concatenate(lists, axis=1)
    # Interleaved, so that every retriever's best come first: (place in its list, retriever).
    place = np.concatenate([np.arange(each.shape[1]) * len(lists) + turn for turn, each in enumerate(lists)])
    items = items[:, np.argsort(place, kind="stable")]
    items = np.where(listable(items, points, catalogue), items, -1)
    items = _first_of_each(items)
    order = np.argsort(items < 0, axis=1, kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    width = int((items >= 0).sum(axis=1).max(initial=0))
    return np.ascontiguousarray(items[:, : min(most, width)])


def _first_of_each(items: np.ndarray) -> np.ndarray:
    """The same with -1 where an item stands further left in its row."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    again = np.zeros(items.shape, bool)
    np.put_along_axis(again, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return np.where(again, -1, items)


@dataclass
class Brought:
    """What retrievers bring of the targets of points that are added bit by bit."""

    points: int = 0
    candidates: int = 0
    found: int = 0  # targets among the candidates
    by: dict[str, int] = field(default_factory=dict)  # retriever -> targets in its list

    def add(self, retrieved: Retrieved, candidates: np.ndarray, target: np.ndarray) -> None:
        """`candidates`: (points, n); `target`: (points,)."""
        for name, items in retrieved.items():
            self.by[name] = self.by.get(name, 0) + int((items == target[:, None]).any(axis=1).sum())
        self.points += len(target)
        self.candidates += int((candidates >= 0).sum())
        self.found += int((candidates == target[:, None]).any(axis=1).sum())

    def figures(self) -> dict[str, Any]:
        """Candidates of a point in the mean; the share of the targets that each retriever, and all, bring."""
        total = max(1, self.points)
        recall = {name: number / total for name, number in self.by.items()}
        return {"mean": self.candidates / total, "recall": recall, "all": self.found / total}
