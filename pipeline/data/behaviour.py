"""Features of users and items from the rows of train, as Ibis expressions that run on DuckDB and on Spark.

In: rows of train with `positive`. Out: one row per user or item, float64 columns (null where undefined), the
same whatever the order of the rows: sums of fractions are sums of integers (`_exact`), because adding floats
in parallel gives other last digits on every run.

Columns of both: interactions, log_interactions (ln(1 + n)); event_<name> (rows of each of the five most
frequent events); value_mean; value_z and value_z_<name> (mean of the standardised value, below);
positive_share; recency_days (last row to the end of train); age_days (first row to the end of train). Of
items: users, interactions_last_{1,5,20}_percent (rows in that last share of the time that train spans). Of
users: active_days, value_std.

Standardised value (ratings, dwell times and amounts alike, refunds negative): z = (s - mean(s)) / std(s) over
train's rows of the same event, with s = sign(v) ln(1 + |v|); 0 if the event has one value only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ibis

from pipeline.data import tables as t
from pipeline.data.splitting import EPOCH, MOMENT, microseconds

TOP_EVENTS = 5
LAST_PERCENT = (1, 5, 20)
_NO_MEASUREMENT = 1e100  # values as large are left out, as infinity is; their squares must be numbers
_DAY = 86_400_000_000.0  # microseconds


@dataclass(frozen=True)
class Event:
    """An event of train: the mean and deviation of its squeezed values (see the module)."""

    name: str
    column: str
    mean: float
    std: float


@dataclass(frozen=True)
class Ranges:
    """What the features are scaled by."""

    rows: int
    largest: float  # |value|
    start: int  # microseconds
    end: int
    events: tuple[Event, ...]


def find_ranges(train: ibis.Table) -> Ranges:
    """Two small queries over train, which has at least one row."""
    value = _finite(train)
    extent = train.agg(
        rows=train.count(), largest=value.abs().max(), start=train[t.TIME].min(), end=train[t.TIME].max()
    )
    extent = extent.select("rows", "largest", start=microseconds(extent.start), end=microseconds(extent.end))
    row = extent.to_pandas().iloc[0]
    rows, largest = int(row["rows"]), float(row["largest"]) if row["largest"] == row["largest"] else 0.0
    squeezed, limit = _squeeze(value), math.log1p(largest)
    by_event = train.filter(train[t.EVENT].notnull()).mutate(squeezed=squeezed)
    by_event = by_event.group_by(t.EVENT).agg(
        rows=by_event.count(),
        values=by_event.squeezed.count(),
        total=_exact(by_event.squeezed, limit, rows),
        squares=_exact(by_event.squeezed * by_event.squeezed, limit**2, rows),
    )
    top = by_event.order_by([ibis.desc("rows"), t.EVENT]).limit(TOP_EVENTS).to_pandas()
    events: list[Event] = []
    for name, count, total, squares in top[[t.EVENT, "values", "total", "squares"]].itertuples(index=False):
        mean = total / count if count else 0.0
        variance = squares / count - mean**2 if count else 0.0
        # Rounding leaves a constant value a variance of about 1e-12.
        std = math.sqrt(variance) if variance > 1e-9 * max(1.0, mean**2) else 0.0
        events.append(Event(name, _column(name, [event.column for event in events]), mean, std))
    return Ranges(rows, largest, int(row["start"]), int(row["end"]), tuple(events))


def item_features(train: ibis.Table, ranges: Ranges) -> ibis.Table:
    """item_id and the columns of the module's list, by item_id."""
    rows = _prepared(train, ranges)
    last = {}
    for percent in LAST_PERCENT:
        start = EPOCH + timedelta(microseconds=ranges.end - (ranges.end - ranges.start) * percent // 100)
        recent = rows[t.TIME] > ibis.literal(start, MOMENT)
        last[f"interactions_last_{percent}_percent"] = rows.count(where=recent)
    table = rows.group_by(t.ITEM).agg(**_common(rows, ranges), users=rows[t.USER].nunique(), **last)
    return _as_floats(table, t.ITEM)


def user_features(train: ibis.Table, ranges: Ranges) -> ibis.Table:
    """user_id and the columns of the module's list, by user_id. value_std: of the sample."""
    rows = _prepared(train, ranges)
    table = rows.group_by(t.USER).agg(
        **_common(rows, ranges),
        active_days=rows[t.TIME].date().nunique(),
        values=rows.finite.count(),
        squares=_exact(rows.finite * rows.finite, ranges.largest**2, ranges.rows),
    )
    count = table["values"].cast("float64")
    variance = (table.squares - count * table.value_mean * table.value_mean) / (count - 1).nullif(0)
    # Rounding may leave a constant user a little below zero.
    table = table.mutate(value_std=ibis.greatest(variance, 0.0).sqrt()).drop("values", "squares")
    return _as_floats(table, t.USER)


def _prepared(train: ibis.Table, ranges: Ranges) -> ibis.Table:
    value = _finite(train)
    squeezed = _squeeze(value)
    standard: Any = ibis.null("float64")
    if ranges.events:
        branches = [
            (train[t.EVENT] == event.name, (squeezed - event.mean) / (event.std or math.inf))
            for event in ranges.events
        ]
        standard = ibis.cases(*branches)
    return train.select(
        t.USER,
        t.ITEM,
        t.EVENT,
        t.TIME,
        "positive",
        finite=value,
        standard=standard,
    )


def _common(rows: ibis.Table, ranges: Ranges) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "interactions": rows.count(),
        "log_interactions": (rows.count() + 1).ln(),
    }
    for event in ranges.events:
        columns[f"event_{event.column}"] = rows.count(where=rows[t.EVENT] == event.name)
    columns["value_mean"] = _exact_mean(rows.finite, ranges.largest, ranges.rows)
    limit = math.sqrt(ranges.rows)  # the largest standardised value there can be
    columns["value_z"] = _exact_mean(rows.standard, limit, ranges.rows)
    for event in ranges.events:
        of_event = ibis.ifelse(rows[t.EVENT] == event.name, rows.standard, ibis.null("float64"))
        columns[f"value_z_{event.column}"] = _exact_mean(of_event, limit, ranges.rows)
    columns["positive_share"] = rows.count(where=rows.positive) / rows.count()
    # Converted after the aggregation: for DuckDB a moment is dear to count from, cheap to compare.
    columns["recency_days"] = (ranges.end - microseconds(rows[t.TIME].max())).cast("float64") / _DAY
    columns["age_days"] = (ranges.end - microseconds(rows[t.TIME].min())).cast("float64") / _DAY
    return columns


def _finite(rows: ibis.Table) -> ibis.Value:
    return ibis.ifelse(rows[t.VALUE].abs() < _NO_MEASUREMENT, rows[t.VALUE], ibis.null("float64"))


def _squeeze(value: ibis.Value) -> ibis.Value:
    return value.sign() * (value.abs() + 1).ln()


def _exact(value: ibis.Value, largest: float, rows: int) -> Any:
    """Sum of `rows` values of at most |largest|: exact on a grid of 62 bits for the largest possible sum."""
    scale = _scale(largest, rows)
    # Cast: for Spark 0.5 is a decimal, and so would be an integer over it.
    return (value * scale).round().cast("int64").sum().cast("float64") / scale


def _exact_mean(value: ibis.Value, largest: float, rows: int) -> Any:
    return _exact(value, largest, rows) / value.count().nullif(0)


def _scale(largest: float, rows: int) -> float:
    return 2.0 ** (61 - math.ceil(math.log2(rows + 1)) - math.ceil(math.log2(max(largest, 1e-30))))


def _as_floats(table: ibis.Table, key: str) -> ibis.Table:
    columns = {name: table[name].cast("float64") for name in table.columns if name != key}
    return table.select(key, **columns).order_by(key)


def _column(event: str, taken: list[str]) -> str:
    """The event's name as part of a column's: letters, digits and _; different events never share one."""
    plain = re.sub(r"\W+", "_", event.lower()).strip("_") or "other"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    return name
