"""The steps of preprocess in pandas, as one would write them, for `evergreen bench preprocess`.

In: a folder like data/raw. Out: the tables of data/prepared but items and summary. Same windows, points and
orders (tests/test_bench_preprocess.py compares); features of floats agree but for rounding.
Run: python -m pipeline.bench._pandas_steps data/raw FOLDER
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.data import tables as t
from pipeline.data.behaviour import LAST_PERCENT, TOP_EVENTS
from pipeline.data.splitting import TEST, TRAIN, VALIDATION, find_cuts
from pipeline.params import Params, Preprocess

SALT, BETWEEN, DAY = "evergreen", "\x1f", 86_400_000_000
FILES = {TRAIN: "train", VALIDATION: "validation", TEST: "test_interactions"}


def steps(raw: Path, settings: Preprocess) -> dict[str, pd.DataFrame]:
    """File name without suffix -> rows."""
    rows = t.read_parquet(raw / "interactions")
    by_time = rows.groupby(t.TIME).size().rename("rows").reset_index()
    cuts = find_cuts(by_time, settings.validation_share, settings.test_share)
    later = (rows[t.TIME] >= cuts.validation).astype("int8") + (rows[t.TIME] >= cuts.test).astype("int8")
    rows = rows.assign(window=later, positive=_positive(rows, settings))
    known = rows[rows["window"] == TRAIN].groupby(t.USER).size()
    enough = known[known >= settings.min_user_interactions].index
    rows["fit"] = rows[t.USER].isin(enough)
    ties = _digests(rows[t.USER], rows[t.ITEM], rows[t.EVENT].fillna(""))
    rows = rows.assign(ties=ties).sort_values([t.TIME, "ties"], ignore_index=True).drop(columns="ties")
    tables = {name: rows[rows["window"] == window].drop(columns="window") for window, name in FILES.items()}
    points = _points(rows, settings.max_points_per_user)
    train = rows[rows["window"] == TRAIN]
    return tables | {
        "validation_points": points[points["window"] == VALIDATION][t.POINTS],
        "test": points[points["window"] == TEST][t.POINTS],
        "item_features": _features(train, t.ITEM),
        "user_features": _features(train, t.USER),
    }


def _positive(rows: pd.DataFrame, settings: Preprocess) -> pd.Series:
    events, least = settings.positive.events, settings.positive.min_value
    found = pd.Series(True, rows.index) if events is None else rows[t.EVENT].isin(events)
    return found if least is None else found & ~(rows[t.VALUE] < least)


def _digests(*columns: pd.Series) -> list[str]:
    cells: Iterable[tuple[str, ...]] = zip(*columns, strict=True)
    return [hashlib.md5(BETWEEN.join((SALT, *cell)).encode()).hexdigest() for cell in cells]


def _points(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """One point a moment: the first time that a user has the item, at most `most` a user and window."""
    first = rows.groupby([t.USER, t.ITEM])[t.TIME].min().rename("first").reset_index()
    taken = rows[rows["positive"] & (rows["window"] != TRAIN)]
    taken = taken[[t.USER, t.ITEM, t.TIME, "window"]].drop_duplicates()
    taken = taken.merge(first, on=[t.USER, t.ITEM])
    taken = taken[taken[t.TIME] == taken["first"]]
    micro = taken[t.TIME].astype("int64").astype(str)
    digest = pd.Series(_digests(taken[t.USER], taken[t.ITEM], micro), taken.index, dtype="str")
    taken = taken.assign(point_id=digest.str[:16], draw=digest.str[16:]).sort_values(["draw", "point_id"])
    taken = taken[taken.groupby([t.USER, "window"]).cumcount() < most]
    return taken.sort_values([t.TIME, "point_id"], ignore_index=True)


def _features(train: pd.DataFrame, key: str) -> pd.DataFrame:
    """The columns of pipeline/data/behaviour.py."""
    end, start = train[t.TIME].max(), train[t.TIME].min()
    squeezed = np.sign(train[t.VALUE]) * np.log1p(train[t.VALUE].abs())
    by_event = squeezed.groupby(train[t.EVENT])
    mean, std = by_event.transform("mean"), by_event.transform("std", ddof=0)
    z = ((squeezed - mean) / std).where(std > 0, 0.0).where(train[t.VALUE].notna())
    groups = train.assign(z=z).groupby(key)
    table = groups.agg(
        interactions=(t.TIME, "size"),
        value_mean=(t.VALUE, "mean"),
        value_z=("z", "mean"),
        positive_share=("positive", "mean"),
        newest=(t.TIME, "max"),
        oldest=(t.TIME, "min"),
    )
    table["log_interactions"] = np.log1p(table["interactions"])
    for event in train[t.EVENT].value_counts().index[:TOP_EVENTS]:
        mine = train[t.EVENT] == event
        table[f"event_{event}"] = mine.groupby(train[key]).sum()
        table[f"value_z_{event}"] = z.where(mine).groupby(train[key]).mean()
    table["recency_days"] = (end - table.pop("newest")).dt.total_seconds() / 86_400
    table["age_days"] = (end - table.pop("oldest")).dt.total_seconds() / 86_400
    if key == t.ITEM:
        table["users"] = groups[t.USER].nunique()
        for percent in LAST_PERCENT:
            recent = train[t.TIME] > end - (end - start) * percent / 100
            table[f"interactions_last_{percent}_percent"] = recent.groupby(train[key]).sum()
    else:
        table["active_days"] = train[t.TIME].dt.floor("D").groupby(train[key]).nunique()
        table["value_std"] = groups[t.VALUE].std()
    return table.astype("float64").sort_index().reset_index()


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True)
    for name, table in steps(Path(sys.argv[1]), Params.load(Path("params.yaml")).preprocess).items():
        table.to_parquet(target / f"{name}.parquet", index=False, compression="zstd")
