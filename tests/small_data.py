"""Hand-made tables small enough to work out by hand what becomes of them."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import toy

from pipeline.data import tables

START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FILES = ("train", "validation", "test_interactions")


def rows(*cells: tuple[Any, ...]) -> pd.DataFrame:
    """(user, item, day[, event[, value]]) -> interactions."""
    filled = [(*cell, *("rating", 5.0)[len(cell) - 3 :]) for cell in cells]
    frame = pd.DataFrame(filled, columns=["user_id", "item_id", "timestamp", "event", "value"])
    frame["timestamp"] = pd.to_datetime([START + day * DAY for day in frame["timestamp"]]).astype(
        tables.MOMENT
    )
    return frame.assign(text=pd.Series([None] * len(frame), dtype="str"))


def catalogue(ids: list[str], **columns: Any) -> pd.DataFrame:
    never = pd.Series([pd.NaT] * len(ids), dtype=tables.MOMENT)
    empty = pd.Series([None] * len(ids), dtype="str")
    frame = pd.DataFrame({"item_id": ids, "title": [f"Item {name}" for name in ids], "text": empty})
    frame = frame.assign(categories=[[] for _ in ids], available_from=never, available_until=never)
    return frame.assign(**columns)


def write_raw(folder: Path, interactions: pd.DataFrame, items: pd.DataFrame | None = None) -> Path:
    if items is None:
        items = catalogue(sorted(set(interactions["item_id"])))
    shutil.rmtree(folder, ignore_errors=True)
    for month, part in interactions.groupby(interactions["timestamp"].dt.strftime("%Y-%m")):
        tables.write_parquet(
            part.reset_index(drop=True), folder / "interactions" / f"month={month}" / "part-0.parquet"
        )
    tables.write_parquet(items, folder / "items.parquet")
    manifest = {"as_of": "2020-12-31T00:00:00+00:00", "content_hash": "0123"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_params(path: Path, seed: int = 17, **preprocess: Any) -> Path:
    content = toy.committed_params()
    small = {"min_user_interactions": 1, "validation_share": 0.2, "test_share": 0.2}
    content["seed"], content["preprocess"] = seed, content["preprocess"] | small | preprocess
    return toy.write_params(path, content)


class Prepared:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summary = json.loads((folder / "summary.json").read_text())

    def __getitem__(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.folder / f"{name}.parquet")

    def pairs(self, name: str) -> list[tuple[str, str]]:
        return list(self[name][["user_id", "item_id"]].itertuples(index=False, name=None))


def ten_days(**changes: Any) -> pd.DataFrame:
    """One user, items 0 to 9 on days 0 to 9: train 0-5, validation 6-7, test 8-9 (shares .6, .2, .2)."""
    frame = rows(*(("u", str(day), day) for day in range(10)))
    return frame.assign(**changes)


POINT_ROWS = rows(
    *(("u", str(n), n) for n in range(6)),
    *(("w", str(n), n) for n in range(6)),
    ("u", "10", 6, "rating", 1.0),  # no success, but it enters the history
    ("u", "11", 6), ("u", "11", 6, "view"),  # one moment, two events
    ("w", "0", 7),  # repeat: since train
    ("u", "10", 8),  # repeat: since validation, though that was no success
    ("u", "12", 8), ("u", "12", 9),  # the second is a repeat within the window
    ("w", "13", 9), ("w", "14", 9, "rating", 2.0),
)  # fmt: skip
