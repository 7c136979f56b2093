"""What preprocess counts for summary.json; checks that end it in one line if a count is impossible.

In: the tables that pipeline/data/splitting.py makes. Out: plain dictionaries. Each query returns a few rows.
"""

from __future__ import annotations

from typing import Any

import ibis
import pandas as pd

from pipeline.data import tables
from pipeline.data.splitting import MOMENT, TEST, VALIDATION, WINDOWS, Cuts
from pipeline.documents.data import PointCounts, Window
from pipeline.errors import DataError
from pipeline.params import Positive

STATUSES = {"points": "point", "capped": "capped", "unavailable": "unavailable"}
COLD = ("cold_items", "cold_users", "empty_history")
MOSTLY = 0.9  # of the rows with a value below min_value: then it is probably meant for another scale


def count_events(rows: ibis.Table, positive: Positive) -> pd.DataFrame:
    """event, rows, values, least, largest, below (values below min_value); the most frequent event first.

    Raises DataError if there is no row, or one without user, item or time (which collect sets apart).
    """
    value = rows[tables.VALUE]
    table = (
        rows.group_by(tables.EVENT)
        .agg(
            rows=rows.count(),
            values=value.count(),
            least=value.min(),
            largest=value.max(),
            below=rows.count(where=value < (positive.min_value if positive.min_value is not None else 0.0)),
            **{
                f"no_{name}": rows.count(where=rows[name].isnull())
                for name in (tables.USER, tables.ITEM, tables.TIME)
            },
        )
        .to_pandas()
        .sort_values(["rows", tables.EVENT], ascending=[False, True], ignore_index=True)
    )
    if table.empty:
        raise DataError(
            "interactions: no row at all: check collect's source and `collect.as_of`, then collect"
        )
    for name in (tables.USER, tables.ITEM, tables.TIME):
        if missing := int(table[f"no_{name}"].sum()):
            raise DataError(
                f"interactions, column {name}: {missing} rows have none: run `dvc repro -f collect`"
            )
    return table


def count_windows(
    by_time: pd.DataFrame, cuts: Cuts, users: ibis.Table, items: ibis.Table, min_user_interactions: int
) -> dict[str, Window]:
    """By name, train first."""
    starts = {"train": by_time[tables.TIME].min(), "validation": cuts.validation, "test": cuts.test}
    by_user = _one_row(users.agg(**_user_counts(users, starts, min_user_interactions)))
    by_item = _one_row(items.agg(**{name: items.count(where=items[name] > 0) for name in WINDOWS}))
    stops = [*list(starts.values())[1:], None]
    total = int(by_time["rows"].sum())
    windows = {}
    for (name, start), stop in zip(starts.items(), stops, strict=True):
        times = by_time[tables.TIME]
        times = times[(times >= start) & (True if stop is None else times < stop)]
        counts = {key.partition(".")[2]: int(n) for key, n in by_user.items() if key.startswith(f"{name}.")}
        windows[name] = Window(
            **counts,
            share=counts["rows"] / total,
            positive_share=counts["positive"] / counts["rows"],
            items=by_item[name],
            first=times.min(),
            last=times.max(),
        )
    return windows


def _user_counts(users: ibis.Table, starts: dict[str, Any], min_user_interactions: int) -> dict[str, Any]:
    """Aggregates over `users`, named window.count."""
    unfit = users.train < min_user_interactions
    counts: dict[str, Any] = {}
    for name, start in starts.items():
        rows, successes = users[name], users[f"{name}_positive"]
        earlier = users["first"] < ibis.literal(pd.Timestamp(start).to_pydatetime(), MOMENT)
        counts |= {
            f"{name}.rows": rows.sum(),
            f"{name}.users": users.count(where=rows > 0),
            f"{name}.users_with_history": users.count(where=(rows > 0) & earlier),
            f"{name}.positive": successes.sum(),
            f"{name}.positive_fit": successes.sum(where=~unfit).fill_null(0),
            f"{name}.rows_not_fit": rows.sum(where=unfit).fill_null(0),
            f"{name}.users_not_fit": users.count(where=unfit & (rows > 0)),
        }
    return counts


def check_windows(
    windows: dict[str, Window], events: pd.DataFrame, positive: Positive, least_rows: int
) -> None:
    """Raises DataError if a window has no success, or train nobody to fit on."""
    wanted = "all" if positive.events is None else positive.events
    for name, counts in windows.items():
        if counts.positive == 0:
            raise DataError(
                f"preprocess.positive: none of the {counts.rows} rows of the {name} window is a success "
                f"(events {wanted}, min_value {positive.min_value}); the data have "
                f"{_describe(events)}: set events and min_value to what counts as success there"
            )
    train = windows["train"]
    if train.positive_fit == 0:
        raise DataError(
            f"preprocess.min_user_interactions: of {train.users} users in train, none with at least "
            f"{least_rows} rows has a success to learn from: lower it, or collect more data"
        )


def mostly_excluded(events: pd.DataFrame, positive: Positive) -> str | None:
    """A warning if min_value leaves out nearly all rows that have a value."""
    valued = events if positive.events is None else events[events[tables.EVENT].isin(positive.events)]
    values, below = int(valued["values"].sum()), int(valued["below"].sum())
    if positive.min_value is None or values == 0 or below <= MOSTLY * values:
        return None
    return (
        f"warning: preprocess.positive.min_value {positive.min_value:g} leaves out {below / values:.0%} of "
        f"the rows with a value; the data have {_describe(valued)}"
    )


def count_points(
    taken: ibis.Table, users: ibis.Table, items: ibis.Table, windows: dict[str, Window]
) -> dict[str, PointCounts]:
    """Of validation and test: points and what became of the other successes; shares of points that are cold.

    `taken`: distinct successes. positive = points + capped + unavailable + same_moment (further rows of one
    moment), and repeats, where they are no points: they are counted either way.
    """
    by_status = taken.group_by(["window", "status"]).agg(
        rows=taken.count(), repeats=taken.count(where=taken.repeat)
    )
    by_status = by_status.to_pandas()
    rows = by_status.set_index(["window", "status"])["rows"].to_dict()
    repeats = by_status.groupby("window")["repeats"].sum().to_dict()
    chosen = taken.filter(taken.status == "point")
    chosen = chosen.join(users.select(tables.USER, user_rows="train", user_first="first"), tables.USER)
    chosen = chosen.join(items.select(tables.ITEM, item_rows="train"), tables.ITEM)
    counted = {}
    for name, window in (("validation", VALIDATION), ("test", TEST)):
        here = chosen.filter(chosen.window == window)
        start = ibis.literal(pd.Timestamp(windows[name].first).to_pydatetime(), MOMENT)
        slices = _one_row(
            here.agg(
                users=here[tables.USER].nunique(),
                users_with_history_at_start=here[tables.USER].nunique(where=here.user_first < start),
                cold_items=here.count(where=here.item_rows == 0),
                cold_users=here.count(where=here.user_rows == 0),
                empty_history=here.count(where=here.user_first >= here[tables.TIME]),
            )
        )
        statuses = {key: int(rows.get((window, status), 0)) for key, status in STATUSES.items()}
        points, successes = statuses["points"], windows[name].positive
        distinct = sum(statuses.values()) + int(rows.get((window, "repeat"), 0))
        shares: dict[str, Any] = {f"{key}_share": slices[key] / points if points else None for key in COLD}
        counted[name] = PointCounts(
            positive=successes,
            **{key: count for key, count in statuses.items() if key != "repeats"},
            repeats=repeats.get(window, 0),
            same_moment=successes - distinct,
            users=slices["users"],
            users_with_history_at_start=slices["users_with_history_at_start"],
            **shares,
        )
    return counted


def check_points(points: dict[str, PointCounts]) -> None:
    """Raises DataError if a window has nothing to be evaluated at."""
    for name, counts in points.items():
        if counts.points == 0:
            raise DataError(
                f"interactions: the {name} window has {counts.positive} successes but no point: "
                f"{counts.repeats} repeat an item of the user's history, {counts.unavailable} are of "
                f"items not available then: {_more_points(name, counts)}"
            )


def _more_points(window: str, counts: PointCounts) -> str:
    """What would make points of the window's successes."""
    if counts.repeats > counts.unavailable:
        return "set preprocess.repeats to include, if what users take again should be recommended"
    if counts.unavailable:
        until = "collect.files.columns.items.available_until"  # whichever of both it is, it stands there
        return f"correct available_from and available_until of the items ({until})"
    return f"raise preprocess.{window}_share, or collect more data"


def _one_row(table: ibis.Table) -> dict[str, Any]:
    return {str(key): value for key, value in table.to_pandas().iloc[0].items()}


def _describe(events: pd.DataFrame) -> str:
    """ "events rating, view; values 1 to 5"."""
    names = [str(name) for name in events[tables.EVENT].head(5)] + (["..."] if len(events) > 5 else [])
    least, largest = events["least"].min(), events["largest"].max()
    values = "no values" if pd.isna(least) else f"values {least:g} to {largest:g}"
    return f"events {', '.join(names)}; {values}"
