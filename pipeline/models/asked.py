"""What is asked: points with the recency weights of their histories, from which most parts start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import History, Points
from pipeline.models import baselines

HALF_LIVES = (1, 5, 30)  # of a history, in its items
DISLIKED = 0.3  # weight of a history row that is no success
MANY = 10  # rows of a history from which on a user is no new user

Value = TypeVar("Value")


@dataclass(frozen=True)
class Asked:
    """Some points, few enough for (points, candidates, features) to fit in memory."""

    points: Points
    items: int  # of the catalogue
    width: int | None = None  # candidates that scores are standardised over
    _kept: dict[tuple[int, str], tuple[object, object]] = field(default_factory=dict)

    @property
    def weights(self) -> dict[int, sp.csr_matrix]:
        """Half-life -> (points, items)."""
        return self.once(
            self.points, "weights", lambda: {h: self.history.matrix(n) for n, h in enumerate(HALF_LIVES)}
        )

    @property
    def history(self) -> History:
        """Of the half-lives of HALF_LIVES."""
        return self.once(self.points, "history", self._history)

    def _history(self) -> History:
        liking = baselines.liking(self.points.log, DISLIKED)
        return self.points.history(self.items, HALF_LIVES, liking).without_small(baselines.SMALL)

    @property
    def plain(self) -> sp.csr_matrix:
        """(points, items): every item of the history alike."""
        return self.once(self.points, "plain", lambda: self.points.weights(self.items))

    @cached_property
    def few(self) -> np.ndarray:
        """(points, 1) float32: 1 for an empty history, falling to 0 at MANY rows."""
        return np.maximum(1 - self.points.lengths / MANY, 0).astype(np.float32)[:, None]

    def once(self, part: object, what: str, compute: Callable[[], Value]) -> Value:
        """What a part makes of the points: for its lists, its columns, and every model that it is part of."""
        key = id(part), what
        if key not in self._kept:
            self._kept[key] = part, compute()  # the part is held, so that its id stays its own
        return self._kept[key][1]  # type: ignore[return-value]
