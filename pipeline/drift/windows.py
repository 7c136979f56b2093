"""Interactions in windows that hold enough rows and users to be tested.

In: rows (a frame with the interaction columns of pipeline/data/tables.py and any others). Out: windows,
oldest first. A window is consecutive in time and closes where the timestamp changes, at the first such place
where it holds `min_rows` rows, `min_users` users and `window_days` days from its first row to the row that
follows it. What is left over stays open. So later rows never change a window that was closed, and no
timestamp is split.

`user_since` and `item_since` (see `with_since`) say when a user or an item was first met at all, and
`user_before` when the user's row before was; a window then marks its rows `new_user`, `new_item`: not met
before the window began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.documents.drift import Span

MICROSECONDS_A_DAY = 86_400_000_000
USER_SINCE, ITEM_SINCE, USER_BEFORE = "user_since", "item_since", "user_before"
SINCE = (USER_SINCE, ITEM_SINCE, USER_BEFORE)
NEW_USER, NEW_ITEM = "new_user", "new_item"
COUNTED = ("rows", "active users", "arrivals", "new users")  # a day
ABSENT = np.timedelta64(7, "D")  # who was away so long arrives
_FIRST_LOOK = 4  # times min_rows: rows that are searched at first for a window's end


class Rule(Protocol):
    """What a window must hold: the settings of detect_drift, or anything with these three."""

    @property
    def window_days(self) -> float: ...
    @property
    def min_rows(self) -> int: ...
    @property
    def min_users(self) -> int: ...


@dataclass(frozen=True)
class Window:
    """Consecutive rows, by time; with new_user and new_item if the rows said since when each is known."""

    rows: pd.DataFrame

    @property
    def start(self) -> pd.Timestamp:
        """Moment of the first row."""
        return self.rows[tables.TIME].iloc[0]

    @property
    def end(self) -> pd.Timestamp:
        """Moment of the last row, inclusive."""
        return self.rows[tables.TIME].iloc[-1]

    @property
    def users(self) -> int:
        return int(self.rows[tables.USER].nunique())

    def describe(self) -> Span:
        return Span(start=self.start, end=self.end, rows=len(self.rows), users=self.users)


def with_since(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `user_since`, `item_since`: first moment of each; `user_before`: of the user's row before, or NaT.

    Give all rows that are known, old ones too.
    """
    by_time = rows.sort_values(tables.TIME, kind="stable")
    since = {
        USER_SINCE: rows.groupby(tables.USER)[tables.TIME].transform("min"),
        ITEM_SINCE: rows.groupby(tables.ITEM)[tables.TIME].transform("min"),
        USER_BEFORE: by_time.groupby(tables.USER)[tables.TIME].shift(),
    }
    return rows.assign(**since)


def close(rows: pd.DataFrame, settings: Rule) -> list[Window]:
    """The closed windows of `rows` (any order), oldest first; empty if not even one closes."""
    rows = rows.sort_values(tables.TIME, kind="stable", ignore_index=True)
    time, user = microseconds(rows[tables.TIME]), pd.factorize(rows[tables.USER])[0]
    bounds = _bounds(time, user, settings, closed_at_end=False)
    return [as_window(rows.iloc[start:stop]) for start, stop in bounds]


def newest(rows: pd.DataFrame, settings: Rule, count: int) -> list[Window]:
    """At most `count` windows by the same rule going backwards from the last row, oldest first.

    The first row of all counts as a change of the timestamp: nothing earlier will come.
    """
    rows = rows.sort_values(tables.TIME, kind="stable", ignore_index=True)
    time, user = microseconds(rows[tables.TIME])[::-1], pd.factorize(rows[tables.USER])[0][::-1]
    bounds = _bounds(-time, user, settings, closed_at_end=True, most=count)
    turned = [(len(rows) - stop, len(rows) - start) for start, stop in bounds]
    return [as_window(rows.iloc[start:stop]) for start, stop in reversed(turned)]


def as_window(rows: pd.DataFrame) -> Window:
    """Rows as one window, by time, whatever they hold; raises ValueError without a row."""
    if not len(rows):
        raise ValueError("a window has at least one row")
    rows = rows.sort_values(tables.TIME, kind="stable", ignore_index=True)
    for since, new in ((USER_SINCE, NEW_USER), (ITEM_SINCE, NEW_ITEM)):
        if since in rows:
            rows = rows.assign(**{new: (rows[since] >= rows[tables.TIME].iloc[0]).to_numpy(dtype=bool)})
    return Window(rows)


def microseconds(times: pd.Series) -> np.ndarray:
    """(rows,) int64 since 1970."""
    return pd.to_datetime(times, utc=True, cache=False).astype(tables.MOMENT).astype("int64").to_numpy()


@dataclass(frozen=True)
class Daily:
    """What happens a day, and how much of it hangs on single users."""

    counts: np.ndarray  # (days, COUNTED) of each day, oldest first; only the first two where no more is known
    variation: np.ndarray  # (COUNTED,) squared coefficient of variation of the sums, if users come by chance

    @classmethod
    def of(cls, day: np.ndarray, rows: pd.DataFrame, days: int) -> Daily:
        """`day`: (rows,) of each row; 0 .. days - 1 count. `rows` may know user_since and user_before.

        The sums are compound Poisson: sum over users of their squared counts, over the squared sum (half a
        count is added to each, so that nothing counted is not taken for certain).
        """
        kept = (day >= 0) & (day < days)
        day, code, rows = day[kept], pd.factorize(rows[tables.USER])[0][kept], rows[kept]
        visit = np.unique(code.astype(np.int64) * max(days, 1) + day)
        pairs = [(day, code), (visit % max(days, 1), visit // max(days, 1))]
        if USER_SINCE in rows and USER_BEFORE in rows:
            new = rows[USER_BEFORE].isna().to_numpy(dtype=bool)
            away = (rows[tables.TIME] - rows[USER_BEFORE]).to_numpy() > ABSENT
            pairs += [(day[which], code[which]) for which in (new | away, new)]
        counts = [np.bincount(at, minlength=days) for at, _ in pairs]
        of_user = [np.bincount(each).astype(float) for _, each in pairs]
        variation = [(each @ each + 0.5) / (each.sum() + 0.5) ** 2 for each in of_user]
        return cls(np.stack(counts, axis=1), np.array(variation))

    def first(self, count: int) -> Daily:
        """The first of the counts alone."""
        return Daily(self.counts[:, :count], self.variation[:count])


def _bounds(
    time: np.ndarray, user: np.ndarray, rule: Rule, closed_at_end: bool, most: int | None = None
) -> list[tuple[int, int]]:
    """[start, stop) of consecutive windows; `time` ascends. A step a window, each over a few of its rows."""
    before = _row_before(user)
    bounds: list[tuple[int, int]] = []
    start = 0
    while start < len(time) and (most is None or len(bounds) < most):
        stop = _stop(time, before, start, rule, closed_at_end)
        if stop is None:
            break
        bounds.append((start, stop))
        start = stop
    return bounds


def _row_before(user: np.ndarray) -> np.ndarray:
    """(rows,) place of the same user's row before, -1 without one."""
    order = np.argsort(user, kind="stable")
    same = np.flatnonzero(user[order][1:] == user[order][:-1]) + 1
    before = np.full(len(user), -1)
    before[order[same]] = order[same - 1]
    return before


def _stop(time: np.ndarray, before: np.ndarray, start: int, rule: Rule, closed_at_end: bool) -> int | None:
    look = _FIRST_LOOK * max(rule.min_rows, 1)
    while True:
        end = min(start + look, len(time))
        users = np.cumsum(before[start:end] < start)  # a user's first row within the window
        stops = np.arange(start + 1, end + 1)
        last = stops == len(time)
        following = time[np.minimum(stops, len(time) - 1)]
        changed = np.where(last, closed_at_end, following != time[stops - 1])
        days = (np.where(last, time[-1], following) - time[start]) / MICROSECONDS_A_DAY
        enough = (stops - start >= rule.min_rows) & (users >= rule.min_users) & (days >= rule.window_days)
        closing = np.flatnonzero(changed & enough)
        if len(closing):
            return int(stops[closing[0]])
        if end == len(time):
            return None
        look *= 2
