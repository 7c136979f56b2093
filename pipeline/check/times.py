"""Rules on the shape of time: one moment for all, dates alone, far outliers, gaps, uneven windows.

Each gives a finding or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pipeline.check.facts import COLUMNS, Facts, percent
from pipeline.data.moments import stray_from
from pipeline.data.splitting import MOST_AT_ONCE
from pipeline.documents.check import key_in
from pipeline.documents.finding import Finding

LEAST_ROWS = 50  # below, a share says nothing
DAY = pd.Timedelta(days=1)
# Few rows, and after a gap such as there is no other: at most 2 %, a month, ten times the longest one.
FAR: dict[str, Any] = {"share": 0.02, "days": 30, "gaps": 10}


def no_windows(facts: Facts) -> Iterator[Finding]:
    if facts.windows and (problem := facts.windows.problem):
        key = key_in(problem, f"{COLUMNS}.timestamp")
        yield Finding(kind="no_windows", severity="error", text=problem, key=key)


def one_moment(facts: Facts) -> Iterator[Finding]:
    share = float(facts.by_time.max()) / facts.rows
    if share > 0.2 and facts.rows >= LEAST_ROWS:
        moment = facts.by_time.idxmax()
        yield Finding(
            kind="one_moment",
            severity="error" if share > MOST_AT_ONCE else "warning",
            text=f"{percent(share)} of the rows carry one and the same time: they cannot be split by time",
            figure=share,
            unit="share",
            examples=[f"{moment.isoformat()}: {int(facts.by_time.max()):,} rows"],
            key=f"{COLUMNS}.timestamp",
            remedy="name the column that says when each row happened, not when it was exported or imported",
        )


def dates_alone(facts: Facts) -> Iterator[Finding]:
    midnight = facts.by_time[facts.by_time.index.normalize() == facts.by_time.index]
    share = float(midnight.sum()) / facts.rows
    if share > 0.95 and len(facts.by_time) > 1:
        yield Finding(
            kind="dates_without_times",
            severity="note",
            text="times are dates alone: what a user took on one day has no order, and is no history then",
            figure=share,
            unit="share",
            key=f"{COLUMNS}.timestamp",
            remedy="if another column has the time of day, write {date: X, time: Y}",
        )


def future(facts: Facts) -> Iterator[Finding]:
    """Rows that today's date tells to be wrong; `collect` itself knows no clock, and keeps them."""
    rows = facts.by_time[facts.by_time.index > pd.Timestamp.now("UTC") + DAY]  # zones differ
    if len(rows):
        yield Finding(
            kind="future_times",
            severity="warning",
            text=f"{int(rows.sum()):,} rows lie in the future: every decision takes that of "
            f"{rows.index[-1].date()} for now",
            figure=int(rows.sum()),
            unit="rows",
            examples=[moment.isoformat() for moment in rows.index[:3]],
            key="collect.as_of",
            remedy="correct these times in the source, or set collect.as_of before them",
        )


def far_times(facts: Facts) -> Iterator[Finding]:
    """A few rows far from all others: they stretch the span and move `as_of`."""
    first, end = _edges(facts.by_time)
    if first is not None:
        yield _far(facts.by_time[facts.by_time.index < first], "before", first)
    if end is not None and not next(future(facts), None):
        yield _far(facts.by_time[facts.by_time.index >= end], "after", end - DAY)


def _edges(by_time: pd.Series) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """(the day before which, the day from which on a few rows are far from all others)."""
    days = by_time.groupby(by_time.index.floor("D")).sum()
    backwards = days.set_axis(days.index[0] + (days.index[-1] - days.index)).iloc[::-1]
    start, end = stray_from(backwards, **FAR), stray_from(days, **FAR)
    # The mirror shows the day after all but these rows.
    return None if start is None else days.index[0] + (days.index[-1] - start) + DAY, end


def _far(rows: pd.Series, side: str, edge: pd.Timestamp) -> Finding:
    also = ", or set collect.as_of before them: they are `now` for every decision"
    return Finding(
        kind="far_times",
        severity="warning",
        text=f"{int(rows.sum()):,} rows lie long {side} all others ({edge.date()})",
        figure=int(rows.sum()),
        unit="rows",
        examples=[moment.isoformat() for moment in rows.index[:3]],
        key="collect.as_of" if side == "after" else f"{COLUMNS}.timestamp",
        remedy="correct these times in the source" + (also if side == "after" else ""),
    )


def gap(facts: Facts) -> Iterator[Finding]:
    """Between rows that are not far from all others: of these `far_times` tells."""
    times = facts.by_time.loc[slice(*_edges(facts.by_time))].index
    if len(times) < 100:
        return
    gaps = times[1:] - times[:-1]
    place = int(gaps.argmax())
    share = gaps[place] / (times[-1] - times[0])
    if share > 0.1 and gaps[place] > pd.Timedelta(days=2):
        yield Finding(
            kind="gap",
            severity="warning",
            text=f"no row for {gaps[place].days:,} days, {times[place].date()} to {times[place + 1].date()}",
            figure=gaps[place].days,
            unit="days",
            key="collect.files.interactions",
            remedy="look whether a file is missing",
        )


def uneven_windows(facts: Facts) -> Iterator[Finding]:
    settings = facts.params.preprocess
    for name, wanted in (("validation", settings.validation_share), ("test", settings.test_share)):
        window = facts.windows.of("windows", name) if facts.windows else {}
        if window and not 0.5 * wanted <= window["share"] <= 2 * wanted:
            yield Finding(
                kind="uneven_window",
                severity="warning",
                text=f"the {name} window holds {percent(window['share'])} of the rows, not "
                f"{percent(wanted)}: too many rows share one time",
                figure=window["share"],
                unit="share",
                key=f"{COLUMNS}.timestamp",
                remedy="name the column that says when each row happened",
            )
