"""The data's own history as a row of windows, each with the moments at which models are asked.

In: a folder like data/raw. Out: `Timeline`: all rows over one catalogue, N windows of equally many rows after
a first part, and the labelled points of each. Rule: a window begins where the timestamp changes; decisions
fall on beginnings. A model that is trained at a decision is fitted on what lies before the newest share of
the rows known then (`held_back`), which the gate compares with, as in a real run; it is then served in the
window that follows. Items that appear later than a window's beginning are hidden until the window that they
appear in.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import items as catalogue_of
from pipeline.data import splitting, tables
from pipeline.data.engine import duckdb_connection
from pipeline.data.histories import TEST, TRAIN, Catalogue, Log, Points, make_log
from pipeline.documents.data import Manifest
from pipeline.errors import DataError
from pipeline.params import Preprocess
from pipeline.stages.preprocess import read_interactions

START_SHARE = 0.3  # of the rows: known when the first champion is trained
MOST_POINTS = 20_000  # of all windows together, equally many of each; with fewer the gate sees too little
SALT = "evergreen.back16"  # 16 bytes, as pandas wants


@dataclass(frozen=True)
class Window:
    number: int
    start: int  # microseconds, first row; the decision before it knows all earlier rows
    stop: int  # microseconds, exclusive
    rows: int
    users: int
    fit_stop: int  # microseconds, exclusive: a model trained at `start` is fitted on the rows before

    def describe(self) -> dict[str, Any]:
        return {
            "from": moment(self.start).isoformat(),
            "to": moment(self.stop - 1).isoformat(),
            "rows": self.rows,
            "users": self.users,
        }


@dataclass(frozen=True)
class Timeline:
    rows: pd.DataFrame  # interactions in order of time, with `positive`
    items: pd.DataFrame  # the catalogue's table, with item_text
    log: Log  # the same rows, user by user
    catalogue: Catalogue  # available_from: not before the window in which an item appears
    user_ids: np.ndarray
    windows: list[Window]
    points: Points  # labelled moments of all windows, and of what is held back before the first
    held_back: float
    least_rows: int  # of a user who is fitted on
    key: str  # of data, settings and windows

    def fit_rows(self, number: int) -> np.ndarray:
        """(rows of the log,) bool: what a model trained before window `number` is fitted on."""
        before = self.log.time < self.windows[number].fit_stop
        counts = np.bincount(self.log.user[before], minlength=len(self.log.indptr) - 1)
        return before & (counts[self.log.user] >= self.least_rows)

    def fit_end(self, number: int) -> pd.Timestamp:
        """Moment of the newest row that may be fitted on, as a model's card tells."""
        return moment(self.log.time[self.log.time < self.windows[number].fit_stop].max())

    def as_of(self, number: int) -> pd.Timestamp:
        """The newest row known at the decision before window `number`."""
        return moment(self.log.time[self.log.time < self.windows[number].start].max())

    def log_at(self, number: int) -> Log:
        """The log with the window column TRAIN before the model's fit_end and TEST after."""
        later = self.log.time >= self.windows[number].fit_stop
        return replace(self.log, window=np.where(later, TEST, TRAIN).astype(np.int8))

    def served(self, number: int) -> np.ndarray:
        """(points,) bool: those of window `number`."""
        window = self.windows[number]
        return (self.points.time >= window.start) & (self.points.time < window.stop)

    def held(self, number: int) -> np.ndarray:
        """(points,) bool: those that the gate compares at the decision before window `number`."""
        window = self.windows[number]
        return (self.points.time >= window.fit_stop) & (self.points.time < window.start)


def moment(microseconds: int) -> pd.Timestamp:
    return pd.Timestamp(int(microseconds), unit="us", tz="UTC")


def load(raw: Path, settings: Preprocess, windows: int, start_share: float = START_SHARE) -> Timeline:
    """From data/raw. Raises DataError if a table is missing or the rows are too few for the windows."""
    manifest, items = (
        Manifest.read(raw / "manifest.json"),
        tables.read_parquet(raw / "items.parquet", "items"),
    )
    with tempfile.TemporaryDirectory() as spill, duckdb_connection(Path(spill)) as connection:
        read_interactions(raw, connection)
        rows = _rows(connection, settings)
    known = [manifest.content_hash, settings.model_dump(mode="json"), windows, start_share]
    return make(rows, items, settings, windows, start_share, _digest(known))


def _rows(connection: Any, settings: Preprocess) -> pd.DataFrame:
    """All interactions, ties in the files' fixed-salt order, with `positive`."""
    rows = splitting.typed(connection.table("interactions"))
    cuts = splitting.find_cuts(splitting.rows_by_time(rows).to_pandas(), 0.1, 0.1)
    rows = splitting.with_windows(rows, cuts, settings.positive).drop("window")
    return splitting.in_order(rows).select(*tables.INTERACTIONS, "positive").to_pandas()


def make(
    rows: pd.DataFrame,
    items: pd.DataFrame,
    settings: Preprocess,
    windows: int,
    start_share: float = START_SHARE,
    key: str = "",
) -> Timeline:
    """`rows` in order of time, with `positive`. Raises DataError if they are too few for the windows."""
    rows = rows.assign(**{tables.TIME: rows[tables.TIME].astype(tables.MOMENT)})
    time = rows[tables.TIME].astype("int64").to_numpy()
    starts = cut(time, windows, start_share)
    fit_stops = [_fit_stop(time, start, settings.test_share) for start in starts]
    found = _windows(rows, time, starts, fit_stops)
    first = (
        rows.groupby(tables.ITEM, as_index=False)[tables.TIME]
        .min()
        .rename(columns={tables.TIME: "first_seen"})
    )
    never = settings.never_features
    table = catalogue_of.complete(items, first, never)
    template = catalogue_of.parse_template(settings.item_text, items.columns, never)
    table = catalogue_of.with_text(table, template, settings.max_text_characters, moment(fit_stops[0]))
    catalogue = _hidden(Catalogue.of(table), first, [fit_stops[0], *starts])
    user_ids = np.unique(rows[tables.USER].to_numpy(dtype=object))
    log = make_log([rows.assign(fit=True)], catalogue, user_ids, settings.repeats == "include")
    points = _points(log, catalogue, user_ids, [fit_stops[0], *starts], settings.max_points_per_user)
    return Timeline(
        rows,
        table,
        log,
        catalogue,
        user_ids,
        found,
        points,
        settings.test_share,
        settings.min_user_interactions,
        key,
    )


def cut(time: np.ndarray, windows: int, start_share: float) -> list[int]:
    """(rows,) ascending times -> beginnings of `windows` windows of equally many rows after a first part."""
    wanted = len(time) * (start_share + (1 - start_share) * np.arange(windows) / windows)
    changes = np.flatnonzero(np.r_[False, np.diff(time) > 0])
    if len(changes):
        places = np.minimum(np.searchsorted(changes, wanted), len(changes) - 1)
        starts = time[changes[places]]
        if len(np.unique(starts)) == windows:
            return [int(start) for start in starts]
    raise DataError(
        f"interactions: {len(time)} rows of {len(changes) + bool(len(time))} different timestamps do not "
        f"make {windows} windows after a first part: take fewer (--windows), or collect more"
    )


def _fit_stop(time: np.ndarray, start: int, held_back: float) -> int:
    """Where the newest share of the rows before `start` begins: the nearest change of the timestamp."""
    known = time[time < start]
    changes = np.flatnonzero(np.diff(known) > 0) + 1
    if not len(changes):
        raise DataError(
            f"interactions: the {len(known)} rows before {moment(start).date()} cannot be split into rows to "
            "fit on and rows to compare with: collect more, or take a later start"
        )
    nearest = np.abs(changes - round(len(known) * (1 - held_back))).argmin()
    return int(known[changes[nearest]])


def _windows(
    rows: pd.DataFrame, time: np.ndarray, starts: Sequence[int], fit_stops: Sequence[int]
) -> list[Window]:
    stops = [*starts[1:], int(time[-1]) + 1]
    found = []
    for number, (start, stop, fit_stop) in enumerate(zip(starts, stops, fit_stops, strict=True)):
        inside = slice(*np.searchsorted(time, [start, stop]))
        users = int(rows[tables.USER].iloc[inside].nunique())
        found.append(Window(number, start, stop, inside.stop - inside.start, users, fit_stop))
    return found


def _hidden(catalogue: Catalogue, first: pd.DataFrame, boundaries: Sequence[int]) -> Catalogue:
    """Items that appear after a boundary become available at the newest boundary before they appear."""
    seen = np.full(len(catalogue), np.iinfo(np.int64).min)
    seen[catalogue.index(first[tables.ITEM])] = first["first_seen"].astype(tables.MOMENT).astype("int64")
    place = np.searchsorted(boundaries, seen, side="right")
    since = np.r_[np.iinfo(np.int64).min, boundaries][place]
    return replace(catalogue, available_from=np.maximum(catalogue.available_from, since))


def _points(
    log: Log, catalogue: Catalogue, user_ids: np.ndarray, boundaries: Sequence[int], most_a_user: int
) -> Points:
    """Each window's share of MOST_POINTS: first one of each user, then a second ..., drawn by a hash."""
    points = log.successes(log.time >= boundaries[0])
    offered = (catalogue.available_from[points.target] <= points.time) & (
        points.time < catalogue.available_until[points.target]
    )
    points = points[np.flatnonzero(offered)]
    names = pd.DataFrame(
        {"user": user_ids[points.user], "item": catalogue.ids[points.target], "time": points.time}
    )
    draw = pd.util.hash_pandas_object(names, index=False, hash_key=SALT).to_numpy()
    window = np.searchsorted(boundaries, points.time, side="right")
    order = np.lexsort((draw, points.user, window))
    group = window[order].astype(np.int64) * len(user_ids) + points.user[order]
    start = np.flatnonzero(np.r_[True, np.diff(group) != 0]) if len(group) else np.zeros(0, np.int64)
    place = np.empty(len(points), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(start, np.diff(np.r_[start, len(group)]))
    order = np.lexsort((draw, place, window))
    first = np.searchsorted(window[order], np.arange(len(boundaries) + 1), side="left")
    in_window = np.arange(len(order)) - first[window[order]]
    most = max(MOST_POINTS // (len(boundaries) - 1), 1)
    kept = order[(in_window < most) & (place[order] < most_a_user)]
    return points[np.sort(kept)]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
