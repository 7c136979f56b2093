"""The global temporal split and the points of a window, as Ibis expressions that run on DuckDB and on Spark.

Rows: interactions. Three windows, train, validation and test, by time alone. A cut lies where the timestamp
changes, at the change nearest to its share of the rows (the earlier of two equally near), so rows of one
timestamp stay together; no window is empty. Ties within a timestamp are ordered by the MD5 digest of a fixed
salt, user, item and event, so that neither the order of the source nor `seed` enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.errors import DataError
from pipeline.params import Positive

WINDOWS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
MOST_AT_ONCE = 0.8  # share of the rows that may be of one time (docs/check.md)
LEAST_OF_SHARE = 0.1  # of the rows that a window is asked to hold
MOMENT = dt.Timestamp(timezone="UTC", scale=6)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SALT, _BETWEEN = "evergreen", "\x1f"  # a character that no id has keeps ("a", "bc") from ("ab", "c")


@dataclass(frozen=True)
class Cuts:
    """First moments of validation and of test."""

    validation: datetime
    test: datetime


def typed(interactions: ibis.Table) -> ibis.Table:
    """The contract's columns in the contract's types, then any others; NaN in `value` is no value."""
    value = interactions[tables.VALUE].cast("float64")
    columns = {
        tables.USER: interactions[tables.USER].cast("string"),
        tables.ITEM: interactions[tables.ITEM].cast("string"),
        tables.TIME: interactions[tables.TIME].cast(MOMENT),
        tables.EVENT: interactions[tables.EVENT].cast("string"),
        tables.VALUE: ibis.ifelse(value.isnan(), ibis.null("float64"), value),
        tables.TEXT: interactions[tables.TEXT].cast("string"),
    }
    others = [name for name in interactions.columns if name not in columns]
    return interactions.select(**columns, **{name: interactions[name] for name in others})


def microseconds(moment: ibis.Value) -> ibis.Value:
    """int64 since 1970."""
    return moment.delta(ibis.literal(EPOCH, MOMENT), unit="microsecond")


def in_order(rows: ibis.Table) -> ibis.Table:
    """By time; ties by digest."""
    digest = _digest(rows[tables.USER], rows[tables.ITEM], rows[tables.EVENT].fill_null(""))
    return rows.order_by([rows[tables.TIME], digest])


def rows_by_time(rows: ibis.Table) -> ibis.Table:
    """timestamp, rows: the input of `find_cuts`."""
    return rows.group_by(tables.TIME).agg(rows=lambda group: group.count())


def check_shares(
    rows_by_time: pd.DataFrame, cuts: Cuts, validation_share: float, test_share: float
) -> str | None:
    """A warning where one time holds most rows: no cut can divide them.

    Raises DataError where it holds more than MOST_AT_ONCE, or a window gets less than LEAST_OF_SHARE of its
    share: what a training would learn or choose there is chance.
    """
    times, rows = rows_by_time[tables.TIME], rows_by_time["rows"]
    biggest, share = times.loc[rows.idxmax()], rows.max() / rows.sum()
    before, test = rows[times < cuts.validation].sum(), rows[times >= cuts.test].sum()
    held = {"train": before, "validation": rows.sum() - before - test, "test": test}
    asked = {"train": 1 - validation_share - test_share, "validation": validation_share, "test": test_share}
    window = min(held, key=lambda name: held[name] / asked[name])
    fact = f"interactions, column timestamp: {share:.1%} of the rows are of {biggest.isoformat()}"
    remedy = "name the column of when each happened in collect.files.columns.timestamp"
    if share > MOST_AT_ONCE or held[window] < LEAST_OF_SHARE * asked[window] * rows.sum():
        raise DataError(
            f"{fact}, so the {window} window would hold {held[window]:,} of {rows.sum():,} rows, and not "
            f"{asked[window]:.0%}: {remedy}"
        )
    return f"{fact} and cannot be split by time: {remedy}" if share > 0.5 else None


def find_cuts(rows_by_time: pd.DataFrame, validation_share: float, test_share: float) -> Cuts:
    """Columns timestamp, rows. Raises DataError if three windows are impossible."""
    table = rows_by_time.sort_values(tables.TIME)
    if len(table) < 3:
        fact = "all timestamps are equal" if len(table) == 1 else f"only {len(table)} different timestamps"
        raise DataError(
            f"interactions, column timestamp: {fact}, so train, validation and test cannot follow each "
            "other; at least 3 are needed: check that `timestamp` names the time of each interaction"
        )
    before = np.cumsum(table["rows"].to_numpy()) - table["rows"].to_numpy()
    total = int(table["rows"].sum())
    wanted = (round(total * share) for share in (1 - validation_share - test_share, 1 - test_share))
    first, second = _nearest_pair(before, *wanted)
    moments = table[tables.TIME].iloc[[first, second]].dt.tz_convert("UTC").dt.to_pydatetime()
    return Cuts(moments.iloc[0], moments.iloc[1])


def _nearest_pair(before: np.ndarray, first: int, second: int) -> tuple[int, int]:
    """Places i < j in `before` (rows before each timestamp, ascending), from 1 on, nearest to two wanted."""
    i = 1 + int(np.abs(before[1:] - first).argmin())
    j = 1 + int(np.abs(before[1:] - second).argmin())
    if i < j:
        return i, j
    pairs = [pair for pair in ((i - 1, i), (i, i + 1)) if pair[0] >= 1 and pair[1] < len(before)]
    return min(pairs, key=lambda pair: abs(before[pair[0]] - first) + abs(before[pair[1]] - second))


def with_windows(rows: ibis.Table, cuts: Cuts, positive: Positive) -> ibis.Table:
    """Adds `window` (0 train, 1 validation, 2 test) and `positive` (preprocess.positive)."""
    window = ibis.cases(
        (rows[tables.TIME] < ibis.literal(cuts.validation, MOMENT), TRAIN),
        (rows[tables.TIME] < ibis.literal(cuts.test, MOMENT), VALIDATION),
        else_=TEST,
    )
    return rows.mutate(window=window.cast("int8"), positive=is_success(rows, positive))


def is_success(rows: ibis.Table, positive: Positive) -> ibis.BooleanValue:
    """The event, and of rows that have a value, enough of it."""
    success: Any = ibis.literal(True)
    if positive.events is not None:
        success = rows[tables.EVENT].isin(positive.events).fill_null(False)
    if positive.min_value is not None:
        success = success & (rows[tables.VALUE] >= positive.min_value).fill_null(True)
    return success


def seen(rows: ibis.Table, key: str) -> ibis.Table:
    """Per user or item: rows and successes of each window, first moment of all and of train."""
    counts = {name: rows.count(where=rows.window == number) for number, name in enumerate(WINDOWS)}
    successes = {
        f"{name}_positive": rows.count(where=(rows.window == number) & rows.positive)
        for number, name in enumerate(WINDOWS)
    }
    return rows.group_by(key).agg(
        **counts,
        **successes,
        first=rows[tables.TIME].min(),
        first_seen=rows[tables.TIME].min(where=rows.window == TRAIN),
    )


def with_fit(rows: ibis.Table, users: ibis.Table, min_user_interactions: int) -> ibis.Table:
    """Adds `fit`: the user has enough rows in train. `users`: `seen` by user."""
    enough = users.select(tables.USER, fit=users.train >= min_user_interactions)
    return rows.join(enough, tables.USER)


def distinct_successes(
    rows: ibis.Table, items: ibis.Table, max_points_per_user: int, repeats: bool
) -> ibis.Table:
    """What a user took with success in validation or test, and when; and whether it is a point.

    Columns: point_id, user_id, item_id, timestamp, window, repeat, status. `repeat`: any row of the user has
    the item strictly earlier. Status `point`; `repeat`, unless `repeats` may be points; `unavailable`: the
    item is not offered then, so no model could rank it; `capped`: the user has enough points in the window (a
    draw by digest). Rows of the same user, item and timestamp are one success. `items`: item_id,
    available_from, available_until (exclusive).
    """
    taken = rows.filter(rows.positive & (rows.window != TRAIN))
    taken = taken.select(tables.USER, tables.ITEM, tables.TIME, "window").distinct()
    # Only pairs that are asked about: the first times of all pairs would be as many as the rows.
    same = rows.semi_join(taken, [tables.USER, tables.ITEM])
    first = same.group_by([tables.USER, tables.ITEM]).agg(first=same[tables.TIME].min())
    table = taken.join(first, [tables.USER, tables.ITEM]).left_join(items, tables.ITEM)
    offered = (table[tables.AVAILABLE_FROM] <= table[tables.TIME]).fill_null(True) & (
        table[tables.TIME] < table[tables.AVAILABLE_UNTIL]
    ).fill_null(True)
    repeat = table[tables.TIME] > table["first"]
    left_out = [] if repeats else [(repeat, "repeat")]
    status = ibis.cases(*left_out, (~offered, "unavailable"), else_="point")
    digest = _digest(table[tables.USER], table[tables.ITEM], microseconds(table[tables.TIME]).cast("string"))
    table = table.select(
        tables.USER, tables.ITEM, tables.TIME, "window", repeat=repeat, status=status, digest=digest
    )
    # The two halves of the digest name the point and draw it: independent of each other.
    draw = ibis.row_number().over(
        group_by=[table[tables.USER], table.window, table.status],
        order_by=[table.digest.substr(16), table.digest],
    )
    capped = (table.status == "point") & (draw >= max_points_per_user)
    return table.select(
        tables.USER,
        tables.ITEM,
        tables.TIME,
        "window",
        "repeat",
        point_id=table.digest.substr(0, 16),
        status=ibis.ifelse(capped, "capped", table.status),
    )


def points(successes: ibis.Table, window: int) -> ibis.Table:
    """The points of a window, by time, then point_id."""
    chosen = successes.filter((successes.window == window) & (successes.status == "point"))
    return chosen.select(tables.POINTS).order_by([tables.TIME, "point_id"])


def _digest(*parts: ibis.Value) -> ibis.Value:
    text: Any = ibis.literal(_SALT)
    for part in parts:
        text = text + _BETWEEN + part
    return text.hexdigest("md5")
