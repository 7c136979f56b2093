"""Interactions drawn from a world that stands still, and ways to move it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.tables import CATEGORIES, EVENT, ITEM, MOMENT, TEXT, TIME, TITLE, USER, VALUE
from pipeline.drift import check as drift_check
from pipeline.params import DetectDrift, Params

ITEMS, WORDS = 40, {"red": "crimson ruby warm fire", "blue": "azure navy cold water"}
START = pd.Timestamp("2024-01-01", tz="UTC")


def settings(**changed: object) -> DetectDrift:
    """The committed ones for small tables."""
    small = {"min_rows": 200, "min_users": 20, "permutations": 299, "quality_points": 300, **changed}
    return Params.load(Path("params.yaml")).detect_drift.model_copy(update=small)


def check(*tables: Any, **more: Any) -> dict[str, Any]:
    """drift.json of these tables."""
    return drift_check.check(*tables, **more).to_dict()


def rows(seed: int, users: int = 60, first_day: float = 0, days: float = 20, name: str = "u") -> pd.DataFrame:
    """Each user comes on two days and takes about 12 items of its own taste, popular ones more often."""
    draw = np.random.default_rng(seed)
    count = draw.integers(8, 17, users)
    user = np.repeat(np.arange(users), count)
    red = draw.random(users)[user]
    popular = 1 / (1 + np.arange(ITEMS // 2))
    item = draw.choice(ITEMS // 2, len(user), p=popular / popular.sum()) * 2 + (draw.random(len(user)) < red)
    visits = first_day + days * draw.random((users, 2))
    day = visits[user, draw.integers(0, 2, len(user))] + draw.random(len(user)) / 24
    level = draw.normal(3.4, 0.4, users)[user]
    frame = pd.DataFrame(
        {
            USER: pd.Series([f"{name}{each:04}" for each in user], dtype="str"),
            ITEM: pd.Series([f"i{each:02}" for each in item], dtype="str"),
            TIME: (START + pd.to_timedelta(day, unit="D")).astype(MOMENT),
            EVENT: pd.Series(np.where(draw.random(len(user)) < 0.8, "view", "buy"), dtype="str"),
            VALUE: np.clip(np.round(draw.normal(level, 0.8)), 1, 5),
            TEXT: pd.Series([None] * len(user), dtype="str"),
        }
    )
    return frame.sort_values(TIME, kind="stable", ignore_index=True)


def items() -> pd.DataFrame:
    colour = ["red" if each % 2 else "blue" for each in range(ITEMS)]
    return pd.DataFrame(
        {
            ITEM: pd.Series([f"i{each:02}" for each in range(ITEMS)], dtype="str"),
            TITLE: [f"{c} {WORDS[c].split()[each % 4]} thing" for each, c in enumerate(colour)],
            TEXT: None,
            CATEGORIES: [[c] for c in colour],
        }
    )


def thirds(frame: pd.DataFrame, seed: int = 1) -> np.ndarray:
    """(rows,) bool: of a third of the users."""
    users = frame[USER].unique()
    chosen = np.random.default_rng(seed).permutation(np.array(users, dtype=object))[: len(users) // 3]
    return frame[USER].isin(chosen).to_numpy(dtype=bool)
