"""Prepared tables as arrays over one catalogue: the log of interactions and the points to be ranked.

A *point* is a user at a moment. Its history is every interaction of that user strictly before the moment,
whichever window it falls in; everything else a model knows is frozen at the end of train.
pandas is loaded by the functions that read tables, so that training itself runs without (docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from pipeline.data import tables
from pipeline.documents.data import Summary
from pipeline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TRAIN, VALIDATION, TEST = 0, 1, 2
MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Catalogue:
    """Every item of the items table and of the data, sorted by item_id; array position = item index."""

    items: pd.DataFrame
    available_from: np.ndarray  # (items,) int64 microseconds; the minimum where not given
    available_until: np.ndarray  # (items,) int64 microseconds, exclusive; the maximum where not given

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> np.ndarray:
        return self.items[tables.ITEM].to_numpy(dtype=object)

    @classmethod
    def of(cls, items: pd.DataFrame) -> Catalogue:
        items = items.sort_values(tables.ITEM, ignore_index=True)
        limits = np.iinfo(np.int64)
        return cls(
            items,
            _microseconds(items.get(tables.AVAILABLE_FROM), limits.min, len(items)),
            _microseconds(items.get(tables.AVAILABLE_UNTIL), limits.max, len(items)),
        )

    def index(self, item_ids: pd.Series | np.ndarray) -> np.ndarray:
        """Item ids -> int32 indices; -1 for an unknown id."""
        import pandas as pd

        return pd.Index(self.items[tables.ITEM]).get_indexer(pd.Index(item_ids)).astype(np.int32)


@dataclass(frozen=True)
class Log:
    """All interactions, user by user, in time order within a user (ties in the files' fixed-salt order)."""

    user: np.ndarray  # (rows,) int32, ascending
    item: np.ndarray  # (rows,) int32
    time: np.ndarray  # (rows,) int64 microseconds
    value: np.ndarray  # (rows,) float32, NaN where the row has none
    positive: np.ndarray  # (rows,) bool: counts as success (preprocess.positive)
    fit: np.ndarray  # (rows,) bool: may be fitted on (its user has enough rows)
    window: np.ndarray  # (rows,) int8: TRAIN, VALIDATION or TEST
    indptr: np.ndarray  # (users + 1,) int64: rows of user u are indptr[u]:indptr[u + 1]
    repeats: bool = False  # preprocess.repeats: an item of the history may be a target, and be listed
    text: np.ndarray | None = None  # (rows,) object, "" for none; None: no row has any
    liked: np.ndarray | None = None  # (rows,) bool: so in a history; None: what is positive

    def __len__(self) -> int:
        return len(self.item)

    def span(self, user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [start, stop) of each user strictly before its time; an unknown user (-1) has none."""
        known = user >= 0
        start = np.where(known, self.indptr[np.maximum(user, 0)], 0)
        stop = start.copy()
        # One binary search over (user, time) pairs: rank times so that a pair fits one integer.
        if len(self) and known.any():
            ticks = np.unique(self.time)
            key = self.user.astype(np.int64) * (len(ticks) + 1) + np.searchsorted(ticks, self.time)
            wanted = user.astype(np.int64) * (len(ticks) + 1) + np.searchsorted(ticks, time)
            stop = np.where(known, np.searchsorted(key, wanted, side="left"), 0)
        return start, np.maximum(stop, start)

    def points(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> Points:
        start, stop = self.span(user, time)
        return Points(self, user, item, time, start, stop)

    def successes(self, rows: np.ndarray) -> Points:
        """A point for every positive row of the mask; repeats (item met strictly before) if they count."""
        if self.repeats:
            return self._at(np.flatnonzero(rows & self.positive))
        pair = self.user.astype(np.int64) * (int(self.item.max(initial=0)) + 1) + self.item
        order = np.lexsort((self.time, pair))
        new = np.r_[True, np.diff(pair[order]) != 0] if len(order) else np.zeros(0, bool)
        first_time = np.empty(len(self), np.int64)
        first_time[order] = self.time[order][new][np.cumsum(new) - 1]
        return self._at(np.flatnonzero(rows & self.positive & (first_time == self.time)))

    def _at(self, rows: np.ndarray) -> Points:
        return self.points(self.user[rows], self.item[rows], self.time[rows])


@dataclass(frozen=True)
class Points:
    """Moments at which items are ranked for a user; `target` is what the user then took (-1: not known)."""

    log: Log
    user: np.ndarray  # (points,) int32, -1 for a user that the log does not know
    target: np.ndarray  # (points,) int32
    time: np.ndarray  # (points,) int64 microseconds
    start: np.ndarray  # (points,) int64 rows of the log
    stop: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: slice | np.ndarray) -> Points:
        fields = {name: getattr(self, name)[rows] for name in ("user", "target", "time", "start", "stop")}
        return replace(self, **fields)

    def chunks(self, size: int) -> Iterator[Points]:
        for begin in range(0, len(self), size):
            yield self[begin : begin + size]

    def newest(self, rows: int) -> Points:
        """The same points with at most the newest `rows` of each history."""
        return replace(self, start=np.maximum(self.start, self.stop - rows))

    @property
    def lengths(self) -> np.ndarray:
        return self.stop - self.start

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """(point, log row) of every history row, oldest first."""
        lengths = self.lengths
        point = np.repeat(np.arange(len(self)), lengths)
        offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return point, np.repeat(self.start, lengths) + offset

    def excluded(self) -> tuple[np.ndarray, np.ndarray]:
        """(point, item) of what may not be listed: each history's items, nothing where repeats count."""
        if self.log.repeats:
            return np.zeros(0, np.int64), np.zeros(0, np.int32)
        point, row = self.rows()
        return point, self.log.item[row]

    def weights(
        self, items: int, half_life: float = np.inf, row_weight: np.ndarray | None = None
    ) -> sp.csr_matrix:
        """(points, items) float32 recency weights of one half-life, see `history`."""
        return self.history(items, (half_life,), row_weight).matrix(0)

    def history(
        self, items: int, half_lives: tuple[float, ...], row_weight: np.ndarray | None = None
    ) -> History:
        """Each history item's recency weight 2^(-newer / half-life), for every half-life.

        `newer` counts the user's rows after the item's newest one; rows of one timestamp share the mean of
        their places, so that the order of ties carries nothing. An item met more than once keeps its largest
        weight. `row_weight` (rows of the log) multiplies, e.g. by how much a row was liked.
        """
        point, row = self.rows()
        item = self.log.item[row]
        newer = (self.stop[point] - 1 - row).astype(np.float64)
        if len(row):
            # Mean place within (point, time) runs.
            new_run = np.r_[
                True, (point[1:] != point[:-1]) | (self.log.time[row[1:]] != self.log.time[row[:-1]])
            ]
            if not new_run.all():
                run = np.cumsum(new_run) - 1
                newer = (np.bincount(run, newer) / np.bincount(run))[run]
        weight = np.exp2(-newer / np.array(half_lives)[:, None])
        if row_weight is not None:
            weight *= row_weight[row]
        cell = point * items + item
        order = np.argsort(cell, kind="stable")
        first = np.flatnonzero(np.r_[True, np.diff(cell[order]) != 0]) if len(order) else order
        kept = order[first]
        best = np.maximum.reduceat(weight[:, order], first, axis=1) if len(first) else weight
        return History((len(self), items), point[kept], item[kept], best.astype(np.float32))


@dataclass(frozen=True)
class History:
    """The different items of each point's history, point by point, in ascending order within a point."""

    shape: tuple[int, int]  # points, items
    point: np.ndarray  # (cells,) int64
    item: np.ndarray  # (cells,) int32
    weight: np.ndarray  # (half-lives, cells) float32

    def matrix(self, place: int) -> sp.csr_matrix:
        """(points, items): the weights of one half-life that are not 0."""
        there = self.weight[place] > 0
        ends = np.r_[0, np.cumsum(np.bincount(self.point[there], minlength=self.shape[0]))]
        return sp.csr_matrix((self.weight[place][there], self.item[there], ends), shape=self.shape)

    def without_small(self, share: float) -> History:
        """Weights below a share of the point's largest become 0: they cost time and move nothing."""
        if not len(self.point):
            return self
        new = np.r_[True, np.diff(self.point) != 0]
        largest = np.maximum.reduceat(self.weight, np.flatnonzero(new), axis=1)[:, np.cumsum(new) - 1]
        return replace(self, weight=np.where(self.weight < share * largest, 0, self.weight))


@dataclass(frozen=True)
class Prepared:
    """What `preprocess` wrote, as arrays over one catalogue."""

    catalogue: Catalogue
    user_ids: np.ndarray  # (users,) object, sorted
    log: Log
    validation: Points
    test: Points
    test_point_ids: np.ndarray  # (test points,) object
    users: pd.DataFrame | None = None  # user_id and further columns; users may be missing
    as_of: int = 0  # microseconds
    withheld: pd.DataFrame | None = None  # item_id and columns of items that no model may see

    @property
    def now(self) -> int:
        """Microseconds just after as_of and all rows: when lists are made that know everything."""
        return max(self.as_of, int(self.log.time.max(initial=0))) + 1

    @property
    def train_end(self) -> int:
        """Microseconds of the newest train row."""
        return int(self.log.time[self.log.window == TRAIN].max())


def days_of_newest(times: np.ndarray, share: float) -> float:
    """Days in which the newest `share` of the rows came, above 0: a half-life of the data's own pace.

    `times`: (rows,) microseconds in any order.
    """
    newest_first = np.sort(times)[::-1]
    span = newest_first[0] - newest_first[int(share * (len(times) - 1))] if len(times) else 0
    return max(float(span / MICROSECONDS_A_DAY), 1e-3)


def make_log(
    frames: list[pd.DataFrame], catalogue: Catalogue, user_ids: np.ndarray, repeats: bool = False
) -> Log:
    """Interactions of the windows train, validation, test (in this order; later ones may be absent)."""
    import pandas as pd

    table = pd.concat([frame.assign(window=window) for window, frame in enumerate(frames)], ignore_index=True)
    table["user"] = pd.Index(user_ids).get_indexer(table[tables.USER]).astype(np.int32)
    table = table.sort_values("user", kind="stable", ignore_index=True)  # files are in time order
    counts = np.bincount(table["user"], minlength=len(user_ids))
    return Log(
        user=table["user"].to_numpy(),
        item=catalogue.index(table[tables.ITEM]),
        time=_microseconds(table[tables.TIME], 0, len(table)),
        value=table[tables.VALUE].to_numpy(dtype=np.float32, na_value=np.nan),
        positive=table["positive"].to_numpy(dtype=bool),
        fit=table["fit"].to_numpy(dtype=bool),
        window=table["window"].to_numpy(dtype=np.int8),
        indptr=np.r_[0, np.cumsum(counts)].astype(np.int64),
        repeats=repeats,
        text=_texts(table),
    )


def _texts(table: pd.DataFrame) -> np.ndarray | None:
    texts = table.get(tables.TEXT)
    return None if texts is None or not texts.notna().any() else texts.fillna("").to_numpy(dtype=object)


def load_prepared(folder: Path) -> Prepared:
    """Read data/prepared. Raises DataError if a table is missing."""
    import pandas as pd

    names = ["train", "validation", "test_interactions", "items", "validation_points", "test"]
    missing = [name for name in names if not (folder / f"{name}.parquet").exists()]
    if missing:
        raise DataError(f"{folder / missing[0]}.parquet: no such table: run `dvc repro preprocess`")
    read = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    catalogue = Catalogue.of(read["items"])
    windows = [read[name] for name in names[:3]]
    user_ids = np.sort(pd.concat([frame[tables.USER] for frame in windows]).unique().to_numpy(dtype=object))
    summary = Summary.read(folder / "summary.json")
    log = make_log(windows, catalogue, user_ids, summary.settings.get("repeats") == "include")
    return Prepared(
        catalogue=catalogue,
        user_ids=user_ids,
        log=log,
        validation=_points(log, read["validation_points"], catalogue, user_ids),
        test=_points(log, read["test"], catalogue, user_ids),
        test_point_ids=read["test"]["point_id"].to_numpy(dtype=object),
        users=pd.read_parquet(users) if (users := folder / "users.parquet").exists() else None,
        withheld=pd.read_parquet(further) if (further := folder / "withheld.parquet").exists() else None,
        as_of=0 if summary.as_of is None else int(pd.Timestamp(summary.as_of).timestamp() * 1_000_000),
    )


def _points(log: Log, frame: pd.DataFrame, catalogue: Catalogue, user_ids: np.ndarray) -> Points:
    import pandas as pd

    user = pd.Index(user_ids).get_indexer(frame[tables.USER]).astype(np.int32)
    return log.points(
        user, catalogue.index(frame[tables.ITEM]), _microseconds(frame[tables.TIME], 0, len(frame))
    )


def _microseconds(column: pd.Series | None, missing: int, length: int) -> np.ndarray:
    if column is None:
        return np.full(length, missing, dtype=np.int64)
    import pandas as pd

    # cache: pandas would look for repeats in a sample of moments, one Python object each
    stamps = pd.to_datetime(column, utc=True, cache=False).astype("datetime64[us, UTC]")
    return np.where(stamps.isna(), missing, stamps.astype("int64")).astype(np.int64)
