"""The steps of preprocess in pandas, as one would write them, for `evergreen bench preprocess`.

In: a folder like data/raw. Out: the tables of data/prepared but items and summary. Same windows, points and
orders (tests/test_bench_preprocess.py compares).
Run: python -m pipeline.bench._pandas_steps data/raw FOLDER
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from pipeline.data.splitting import TEST, TRAIN, VALIDATION, find_cuts
from pipeline.data.tables import EVENT, ITEM, POINTS, TIME, USER, VALUE, read_parquet
from pipeline.params import Params, Preprocess

SALT, BETWEEN = "evergreen", "\x1f"
FILES = {TRAIN: "train", VALIDATION: "validation", TEST: "test_interactions"}


def steps(raw: Path, settings: Preprocess) -> dict[str, pd.DataFrame]:
    """File name without suffix -> rows."""
    rows = read_parquet(raw / "interactions")
    by_time = rows.groupby(TIME).size().rename("rows").reset_index()
    cuts = find_cuts(by_time, settings.validation_share, settings.test_share)
    later = (rows[TIME] >= cuts.validation).astype("int8") + (rows[TIME] >= cuts.test).astype("int8")
    rows = rows.assign(window=later, positive=_positive(rows, settings))
    known = rows[rows["window"] == TRAIN].groupby(USER).size()
    enough = known[known >= settings.min_user_interactions].index
    rows["fit"] = rows[USER].isin(enough)
    ties = _digests(rows[USER], rows[ITEM], rows[EVENT].fillna(""))
    rows = rows.assign(ties=ties).sort_values([TIME, "ties"], ignore_index=True).drop(columns="ties")
    tables = {name: rows[rows["window"] == window].drop(columns="window") for window, name in FILES.items()}
    points = _points(rows, settings.max_points_per_user)
    return tables | {
        "validation_points": points[points["window"] == VALIDATION][POINTS],
        "test": points[points["window"] == TEST][POINTS],
    }


def _positive(rows: pd.DataFrame, settings: Preprocess) -> pd.Series:
    events, least = settings.positive.events, settings.positive.min_value
    found = pd.Series(True, rows.index) if events is None else rows[EVENT].isin(events)
    return found if least is None else found & ~(rows[VALUE] < least)


def _digests(*columns: pd.Series) -> list[str]:
    cells: Iterable[tuple[str, ...]] = zip(*columns, strict=True)
    return [hashlib.md5(BETWEEN.join((SALT, *cell)).encode()).hexdigest() for cell in cells]


def _points(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """One point a moment: the first time that a user has the item, at most `most` a user and window."""
    first = rows.groupby([USER, ITEM])[TIME].min().rename("first").reset_index()
    taken = rows[rows["positive"] & (rows["window"] != TRAIN)]
    taken = taken[[USER, ITEM, TIME, "window"]].drop_duplicates()
    taken = taken.merge(first, on=[USER, ITEM])
    taken = taken[taken[TIME] == taken["first"]]
    micro = taken[TIME].astype("int64").astype(str)
    digest = pd.Series(_digests(taken[USER], taken[ITEM], micro), taken.index, dtype="str")
    taken = taken.assign(point_id=digest.str[:16], draw=digest.str[16:]).sort_values(["draw", "point_id"])
    taken = taken[taken.groupby([USER, "window"]).cumcount() < most]
    return taken.sort_values([TIME, "point_id"], ignore_index=True)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True)
    for name, table in steps(Path(sys.argv[1]), Params.load(Path("params.yaml")).preprocess).items():
        table.to_parquet(target / f"{name}.parquet", index=False, compression="zstd")
