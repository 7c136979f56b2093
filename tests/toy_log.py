"""Prepared data made in a test from literal rows, without files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.data.histories import TEST, TRAIN, VALIDATION, Catalogue, Prepared, make_log

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2024-01-01", tz="UTC")

Row = tuple[str, str, float]  # user, item, day


def catalogue(ids: Sequence[str], **columns: list[object]) -> Catalogue:
    return Catalogue.of(pd.DataFrame({"item_id": list(ids), **columns}))


def at(day: float) -> int:
    """Microseconds of a day counted from START."""
    return round((START + day * DAY).timestamp() * 1_000_000)


def prepared(
    items: Catalogue | Sequence[str],
    train: Sequence[Row],
    validation: Sequence[Row] = (),
    test: Sequence[Row] = (),
    *,
    disliked: Sequence[Row] = (),
    unfit: Sequence[str] = (),
) -> Prepared:
    """Rows in time order; every validation and test row is also a point. `disliked` rows are no success."""
    everything = items if isinstance(items, Catalogue) else catalogue(items)
    frames = [_frame(rows, disliked, unfit) for rows in (train, validation, test)]
    users = np.unique(np.concatenate([frame["user_id"].to_numpy(dtype=object) for frame in frames]))
    log = make_log(frames, everything, users)
    points = {}
    for window, rows in ((VALIDATION, validation), (TEST, test)):
        user = pd.Index(users).get_indexer([row[0] for row in rows]).astype(np.int32)
        item = everything.index(np.array([row[1] for row in rows], dtype=object))
        points[window] = log.points(user, item, np.array([at(row[2]) for row in rows], dtype=np.int64))
    ids = np.array([f"p{number}" for number in range(len(test))], dtype=object)
    assert (log.window == TRAIN).any()
    return Prepared(everything, users, log, points[VALIDATION], points[TEST], ids)


def _frame(rows: Sequence[Row], disliked: Sequence[Row], unfit: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": pd.Series([row[0] for row in rows], dtype="str"),
            "item_id": pd.Series([row[1] for row in rows], dtype="str"),
            "timestamp": pd.to_datetime([START + row[2] * DAY for row in rows], utc=True).as_unit("us"),
            "event": pd.Series(["view"] * len(rows), dtype="str"),
            "value": np.full(len(rows), np.nan),
            "positive": [row not in disliked for row in rows],
            "fit": [row[0] not in unfit for row in rows],
        }
    )
