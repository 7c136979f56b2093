"""A model whose score is a sum over the history, so that the cause of each score is known."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import toy_log

from pipeline.data.histories import Points, make_log
from pipeline.models.asked import Asked

ITEMS, USERS, ROWS = 12, 30, 5


def moments() -> Points:
    """Each user's five items, and a moment behind them."""
    generator = np.random.default_rng(3)
    ids = [f"i{n:02}" for n in range(ITEMS)]
    rows = [
        (f"u{user:02}", ids[item], pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=hour))
        for user in range(USERS)
        for hour, item in enumerate(generator.permutation(ITEMS)[:ROWS])
    ]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).assign(
        event="view", value=np.nan, text=None, fit=True, positive=True
    )
    table["timestamp"] = table["timestamp"].astype("datetime64[us, UTC]")
    log = make_log([table], toy_log.catalogue(ids), np.unique(table["user_id"].to_numpy(dtype=object)))
    late = np.full(USERS, log.time.max() + 1)
    return log.points(np.arange(USERS, dtype=np.int32), np.full(USERS, -1, np.int32), late)


class Summing:
    """A model whose score of an item is a sum over the history; its reasons name the largest part, or not."""

    def __init__(self, honest: bool | None) -> None:
        self.weights = np.random.default_rng(5).normal(size=(ITEMS, ITEMS)).astype(np.float32)
        self.honest = honest
        self.card, self.catalogue = {"features": ["sum"]}, range(ITEMS)
        self.scorer = SimpleNamespace(score=lambda features: features[..., 0])
        self.parts: Any = self
        self.collaborative = self

    def ask(self, points: Points) -> Iterator[Asked]:
        yield Asked(points, ITEMS)

    def candidates(self, asked: Asked) -> np.ndarray:
        return np.arange(ITEMS, dtype=np.int32)[None]

    def columns(self, asked: Asked, items: np.ndarray) -> dict[str, np.ndarray]:
        return {"sum": np.take_along_axis(asked.plain @ self.weights, items, axis=1)}

    def owed(self, asked: Asked, row: int, items: np.ndarray) -> np.ndarray:
        history = asked.plain[row].indices
        if self.honest is None:
            return np.full(len(items), -1)
        apart = self.weights - self.weights.mean(axis=1, keepdims=True)
        parts = apart[history][:, items]
        return history[(parts if self.honest else -parts).argmax(axis=0)]
