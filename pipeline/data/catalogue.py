"""Items and users as tables: from what a source says of them, or its interactions of their items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import hints, tables
from pipeline.data.ids import as_ids, id_faults
from pipeline.data.moments import as_moments
from pipeline.data.rejected import Rejected
from pipeline.data.time_format import TimeFormat
from pipeline.data.values import MISSING, as_lists, as_prose, as_text, as_typed
from pipeline.data.vectors import with_vectors
from pipeline.errors import DataError
from pipeline.sources import OF_ITEM, PLACE, RAW, REASON

Counts = dict[str, int]
_WRITTEN = (  # columns that say when a row of the catalogue was written
    *(tables.TIME, "updated_at", "modified_at", "last_updated", "last_modified", "updated", "modified"),
    "snapshot_date",
)


def items_table(
    frame: pd.DataFrame | None,
    described: dict[str, pd.DataFrame],
    rejected: Rejected,
    times: Mapping[str, TimeFormat],
    decimal: str | None = None,
) -> tuple[pd.DataFrame, Counts]:
    if frame is None:
        frame = pd.DataFrame({tables.ITEM: pd.Series([], dtype="str")})
        for name, rows in described.items():
            cells = rows.set_index(tables.ITEM)["cell"].rename(name.removeprefix(OF_ITEM)).reset_index()
            frame = frame.merge(cells, on=tables.ITEM, how="outer")
        for name in frame.columns.difference(tables.ITEMS):
            frame[name] = as_typed(frame[name], decimal)
        return check_items(frame, times)
    return check_items(_filled(frame, "items", tables.ITEM, rejected), times)


def users_table(frame: pd.DataFrame | None, rejected: Rejected) -> tuple[pd.DataFrame, Counts]:
    if frame is None:
        frame = pd.DataFrame({tables.USER: pd.Series([], dtype="str")})
    frame = _filled(frame, "users", tables.USER, rejected)
    users = _one_a_key(
        _with_further(pd.DataFrame({tables.USER: as_ids(frame[tables.USER])}), frame), tables.USER
    )
    return users, {"kept": len(users), "duplicates": len(frame) - len(users)}


def _filled(frame: pd.DataFrame, table: str, key: str, rejected: Rejected) -> pd.DataFrame:
    """The rows that were read and have an id; the others go to `rejected`."""
    if key not in frame:
        raise DataError(f"{table}: the source gives no column {key}: see docs/sources.md")
    frame = frame.reset_index(drop=True)
    unread = frame[REASON] if REASON in frame else empty(frame, "str")
    reasons = unread.astype(object).where(unread.notna(), None)
    reasons = reasons.where(unread.notna(), id_faults(frame[key], key))
    rejected.add(table, frame, reasons)
    return frame[reasons.isna()].reset_index(drop=True)


def _with_further(ours: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    further = frame.columns.difference([*ours.columns, PLACE, REASON, RAW], sort=False)
    return pd.concat([ours, frame[further]], axis=1)


def describe_items(described: dict[str, pd.DataFrame], kept: pd.DataFrame) -> None:
    """Update column -> (item_id, timestamp, cell): an item's first filled cell, ties by the cell."""
    for name in (name for name in kept if name.startswith(OF_ITEM)):
        cell = kept[name] if pd.api.types.is_numeric_dtype(kept[name].dtype) else as_prose(kept[name])
        rows = pd.DataFrame(
            {tables.ITEM: kept[tables.ITEM], tables.TIME: kept[tables.TIME], "cell": cell}
        ).dropna()
        if name in described:
            rows = pd.concat([described[name], rows]) if len(rows) else described[name]
        if rows["cell"].dtype == object:  # files of one table that differ in a column's type
            rows["cell"] = as_text(rows["cell"])
        rows = rows[rows[tables.TIME] == rows.groupby(tables.ITEM)[tables.TIME].transform("min")]
        described[name] = rows.sort_values([tables.ITEM, "cell"]).drop_duplicates(tables.ITEM)


def check_items(frame: pd.DataFrame, times: Mapping[str, TimeFormat]) -> tuple[pd.DataFrame, Counts]:
    """(items in the contract's types, counts): rows of one item_id become one, see `_newest`."""
    items = pd.DataFrame({tables.ITEM: as_ids(frame[tables.ITEM])})
    for name in (tables.TITLE, tables.TEXT):
        text = optional(frame, name, as_prose)
        items[name] = (
            empty(frame, "str") if text is None else _without_words_for_none(text, items[tables.ITEM])
        )
    lists = optional(frame, tables.CATEGORIES, as_lists)
    items[tables.CATEGORIES] = (
        empty(frame, object) if lists is None else lists.where(lists.str.len() > 0, None)
    )
    for name in _listed(frame):
        cells = as_lists(frame[name])
        items[name] = cells.where(cells.str.len() > 0, None)
    unreadable = no(frame)
    for name in (tables.AVAILABLE_FROM, tables.AVAILABLE_UNTIL):
        moments, bad = empty(frame, tables.MOMENT), no(frame)
        if name in frame:
            moments, bad = as_moments(frame[name], name, times.get(name))
            _refuse_unread(frame[name], bad, name)
        items[name], unreadable = moments, unreadable | bad
    items = with_vectors(_one_a_key(_newest_last(_with_further(items, frame), times), tables.ITEM))
    filled = [cell if isinstance(cell, list) else [] for cell in items[tables.CATEGORIES]]
    items[tables.CATEGORIES] = pd.Series(filled, items.index, dtype=object)
    counts = {"kept": len(items), "duplicates": len(frame) - len(items)}
    return items, {**counts, "unreadable_dates": int(unreadable.sum())}


def _listed(frame: pd.DataFrame) -> list[str]:
    """Columns of lists besides the categories, which text may spell as it may theirs.

    Raises DataError for text in those of which two make pairs: which cell goes with which, it cannot say.
    """
    paired = [name for name in (*tables.GRAPH, tables.TAG_TIMES) if name in frame]
    for name in paired:
        if (wrong := as_text(frame[name]).dropna()).size and not _are_lists(frame[name]):
            remedy = (
                "rename it"
                if name == tables.TAG_TIMES
                else "give triples as a table, collect.files.relations"
            )
            raise DataError(f"items, column {name}: {wrong.iloc[0]!r} is no list: {remedy}, or leave it out")
    tags = [] if tables.TAG_TIMES in paired else [tables.TAGS]  # else each has its time, repeats as well
    return [name for name in (*tags, *tables.WORDS) if name in frame]


def _are_lists(column: pd.Series) -> bool:
    return all(isinstance(cell, list | tuple | np.ndarray) for cell in column if not _is_missing(cell))


def _is_missing(cell: object) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or cell != cell


def _newest_last(items: pd.DataFrame, times: Mapping[str, TimeFormat]) -> pd.DataFrame:
    """In order of the column that says when a row was written, if any; else as read (files by name).

    Raises DataError if rows are repeated and a cell there is no time.
    """
    written = next((name for name in _WRITTEN if name in items), None)
    if written is None or not items[tables.ITEM].duplicated().any():
        return items
    moments, bad = as_moments(items[written], written, times.get(written))
    if bad.any():
        raise DataError(
            f"items, column {written}: {as_text(items[written])[bad].iloc[0]!r} is no time, so which row of "
            "an item is its newest cannot be told: write dates like 2024-01-31, or leave the column out"
        )
    return items.iloc[moments.fillna(pd.Timestamp(0, tz="UTC")).argsort(kind="stable")]


def _refuse_unread(column: pd.Series, bad: pd.Series, name: str) -> None:
    """Raises DataError where most times of a column cannot be read: without them all would be available."""
    if bad.sum() > 0.5 * as_text(column).notna().sum():
        cells = as_text(column)[bad].head(100).tolist()
        advice = hints.of("unreadable_timestamp", cells, name) or ""
        raise DataError(
            f"items, column {name}: most cells are no time, like {cells[0]!r}: "
            + advice.replace(f"columns.{tables.TIME}", f"columns.{name}")
        )


def _without_words_for_none(text: pd.Series, ids: pd.Series) -> pd.Series:
    """Missing where several items have the same word for none (nan, NULL): one alone may be called so."""
    words = text[text.isin(MISSING)]
    items_of = ids[words.index].groupby(words).transform("nunique")
    return text.mask(text.index.isin(items_of[items_of > 1].index))


def _one_a_key(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Sorted by `key`, which becomes unique: of several rows the last filled cell of each column stays.

    Rows that differ in their category alone are one item in several categories.
    """
    repeated = frame[key].duplicated(keep=False)
    if repeated.any():
        rows = frame[repeated]
        merged = rows.groupby(key, sort=False).last().reset_index()
        if tables.CATEGORIES in rows:
            other = rows.columns.difference([tables.CATEGORIES], sort=False)
            alike = rows[other].astype("str").groupby(key, sort=False).nunique(dropna=False).max(axis=1) == 1
            united = rows.groupby(key, sort=False)[tables.CATEGORIES].agg(_union)
            merged[tables.CATEGORIES] = merged[tables.CATEGORIES].mask(
                merged[key].map(alike), merged[key].map(united)
            )
        frame = pd.concat([frame[~repeated], merged.astype(frame.dtypes)])
    return frame.sort_values(key, ignore_index=True)


def _union(lists: pd.Series) -> list[str]:
    return list(dict.fromkeys(text for cell in lists if isinstance(cell, list) for text in cell))


def optional(frame: pd.DataFrame, name: str, convert: Any) -> Any:
    return convert(frame[name]) if name in frame else None


def empty(frame: pd.DataFrame, kind: Any) -> pd.Series:
    return pd.Series(None, frame.index, dtype=kind)


def no(frame: pd.DataFrame) -> pd.Series:
    return pd.Series(False, frame.index)
