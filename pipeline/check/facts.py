"""What the findings are made of: counts over the collected tables and over the windows as they will be.

In: a folder like data/raw, params. Out: `Facts`, whose figures are aggregates, computed by DuckDB. The
windows are filled in by whoever can run `preprocess` (pipeline/check/command.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd

from pipeline.data import splitting, tables
from pipeline.data.engine import named, read_parquet
from pipeline.documents.check import Activity, EventCounts, Period
from pipeline.params import Params, Positive

COLUMNS = "collect.files.columns"  # the key that mends most
NINES = (99, 999, 9_999, 99_999)  # written for 'no value'
BIGGEST = 5
MOST_KINDS = 20  # words of a column that says of what kind a row is
PERIODS = 60  # of a picture
BUCKETS = {"1": 1, "2-4": 2, "5-9": 5, "10-19": 10, "20-49": 20, "50-99": 50, "100+": 100}  # rows: from


@dataclass(frozen=True)
class Windows:
    """What `preprocess` would write, or say."""

    summary: dict[str, Any] = field(default_factory=dict)  # as in data/prepared/summary.json
    items: pd.DataFrame | None = None  # with item_text; None where no windows can be made
    problem: str | None = None  # why not

    def of(self, part: str, name: str) -> dict[str, Any]:
        """Of `windows` or `points`, those of train, validation or test; empty where there are none."""
        return dict(self.summary.get(part, {}).get(name, {}))


@dataclass(frozen=True)
class Facts:
    params: Params
    events: list[EventCounts]
    users: pd.Series  # user_id -> rows, the most first
    items: pd.Series
    table: pd.DataFrame  # of items
    by_time: pd.Series  # timestamp -> rows, in order of time
    empty: dict[str, float]  # column of interactions -> share of empty cells
    successes: int  # user, item and moment; rows that differ in the event alone are one
    repeats: int  # of these, the user had the item before
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)  # further column -> its word -> successes
    windows: Windows | None = None  # None: not asked for
    advice: dict[str, str] = field(default_factory=dict)  # table -> what mends most of its bad rows

    @property
    def rows(self) -> int:
        return int(self.by_time.sum())


def gather(connection: ibis.BaseBackend, raw: Path, params: Params) -> Facts:
    """`raw` holds what collect writes; the connection gets its interactions as a view of that name."""
    files = sorted((raw / "interactions").rglob("*.parquet"))
    rows = splitting.typed(read_parquet(connection, files, "interactions"))
    successes, repeats = _count_repeats(connection, rows, params.preprocess.positive)
    return Facts(
        params,
        _events(rows, params.preprocess.positive),
        _rows_of(rows, tables.USER),
        _rows_of(rows, tables.ITEM),
        tables.read_parquet(raw / "items.parquet", "items"),
        splitting.rows_by_time(rows).to_pandas().set_index(tables.TIME)["rows"].sort_index(),
        _empty(rows),
        successes,
        repeats,
        _kinds(rows, params.preprocess.positive),
    )


def _events(rows: ibis.Table, positive: Positive) -> list[EventCounts]:
    rows = rows.mutate(success=splitting.is_success(rows, positive))
    value = rows[tables.VALUE]
    table = rows.group_by(tables.EVENT).agg(
        rows=rows.count(),
        values=value.count(),
        least=value.min(),
        largest=value.max(),
        usual=value.abs().quantile(0.99),
        successes=rows.count(where=rows.success),
        negative_successes=rows.count(where=rows.success & (value < 0).fill_null(False)),
        zero_successes=rows.count(where=rows.success & (value == 0).fill_null(False)),
        nines=rows.count(where=rows.success & value.isin(NINES).fill_null(False)),
        below=value.max(where=~value.isin(NINES)),
    )
    frame = table.to_pandas().sort_values(["rows", tables.EVENT], ascending=[False, True])
    return [EventCounts.of(row) for row in frame.to_dict("records")]


def _kinds(rows: ibis.Table, positive: Positive) -> dict[str, dict[str, int]]:
    """Of further columns that hold a few words alone, like a status."""
    further = [
        name for name, kind in rows.schema().items() if kind.is_string() and name not in tables.INTERACTIONS
    ]
    if not further:
        return {}
    different = rows.agg(**{name: rows[name].approx_nunique() for name in further}).to_pandas().iloc[0]
    taken = rows.filter(splitting.is_success(rows, positive))
    counts = {name: _rows_of(taken, name) for name in further if 0 < different[name] <= MOST_KINDS}
    return {name: {str(word): int(count) for word, count in found.items()} for name, found in counts.items()}


def _rows_of(rows: ibis.Table, key: str) -> pd.Series:
    counts = rows.group_by(key).agg(rows=lambda group: group.count()).to_pandas()
    return counts.sort_values(["rows", key], ascending=[False, True]).set_index(key)["rows"]


def _empty(rows: ibis.Table) -> dict[str, float]:
    counts = rows.agg(**{name: rows[name].isnull().mean() for name in rows.columns}).to_pandas().iloc[0]
    return {str(name): float(share) for name, share in counts.items()}


def _count_repeats(connection: ibis.BaseBackend, rows: ibis.Table, positive: Positive) -> tuple[int, int]:
    """(successes, of these repeats) of all rows, whichever window they will be in."""
    pair = [tables.USER, tables.ITEM]
    taken = rows.filter(splitting.is_success(rows, positive)).select(*pair, tables.TIME).distinct()
    first = named(
        connection, "first_rows", rows.group_by(pair).agg(first=lambda group: group[tables.TIME].min())
    )
    table = taken.join(first, pair)
    counts = table.agg(all=table.count(), repeats=table.count(where=table[tables.TIME] > table["first"]))
    row = counts.to_pandas().iloc[0]
    return int(row["all"]), int(row["repeats"])


def activity(rows_of: pd.Series) -> Activity:
    bucket = np.searchsorted(list(BUCKETS.values()), rows_of.to_numpy(), side="right") - 1
    counts = np.bincount(bucket, minlength=len(BUCKETS))
    biggest = {str(name): int(rows) for name, rows in rows_of.head(BIGGEST).items()}
    by_rows = dict(zip(BUCKETS, counts.tolist(), strict=True))
    return Activity(count=len(rows_of), biggest=biggest, by_rows=by_rows)


def periods(by_time: pd.Series) -> list[Period]:
    """Rows in equal stretches of time."""
    micros = by_time.index.astype("int64").to_numpy()
    edges = np.linspace(micros[0], micros[-1] + 1, PERIODS + 1)
    rows = np.histogram(micros, edges, weights=by_time.to_numpy())[0].astype(int)
    return [
        Period(start=_moment(edge), rows=int(count))
        for edge, count in zip(edges, rows.tolist(), strict=False)
    ]


def _moment(micros: float) -> datetime:
    return pd.Timestamp(int(micros), unit="us", tz="UTC").to_pydatetime()


def percent(share: float) -> str:
    """12 %, 3.4 %, 0.02 %; never 100 % for less than all, nor 0 % for more than nothing."""
    if share in (0, 1):
        return f"{share:.0%}"
    if share > 0.995:
        return f"{min(share, 0.9999):.2%}"
    return (
        f"{share:.0%}" if share >= 0.095 else f"{share:.1%}" if share >= 0.001 else f"{max(share, 1e-5):.3%}"
    )
