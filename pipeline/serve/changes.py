"""Items as callers of the service put and withdrew them, over the table that the source brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from pipeline.data import tables
from pipeline.serve.events import Change


def with_changes(items: pd.DataFrame, changes: Sequence[Change]) -> pd.DataFrame:
    """A table of items with those put in the place of theirs, and those withdrawn no longer on offer."""
    latest = {change.key: change for change in changes if change.kind == "item"}
    put = [change for change in changes if change.kind == "item" and change.content is not None]
    first = {change.key: change.timestamp for change in reversed(put)}
    items = _with_put(items, [change for change in latest.values() if change.content is not None], first)
    gone = {key: change.timestamp for key, change in latest.items() if change.content is None}
    place = items[tables.ITEM].isin(gone)
    if place.any():
        items = items.copy()
        moments = pd.to_datetime(items.loc[place, tables.ITEM].map(gone), unit="us", utc=True).astype(
            tables.MOMENT
        )
        until = items.loc[place, tables.AVAILABLE_UNTIL]
        items.loc[place, tables.AVAILABLE_UNTIL] = until.where(until < moments, moments)
    return items


def misfit(items: pd.DataFrame, content: Mapping[str, object]) -> str | None:
    """Which field of an item's content cannot stand beside those of `items`, and why: a vector of another
    length, or what would turn a column of numbers or of texts into one of both."""
    for name, cell in content.items():
        column = items.dtypes.get(name)
        texts = isinstance(column, pd.StringDtype)
        numbers = not texts and column is not None and is_numeric_dtype(column) and not is_bool_dtype(column)
        if (numbers and type(cell) not in (int, float)) or (texts and not isinstance(cell, str)):
            kind = "number" if numbers else "text"
            return f"{name}: the other items have a {kind} there: write one, or leave it out"
    for name in (name for name in content if name.endswith(tables.VECTOR)):
        cell, there = content[name], items.get(name, pd.Series(dtype=object)).dropna()
        if not len(there):
            return f"{name}: no item in service has one, so lists would not know it: leave it out"
        if isinstance(cell, list) and len(cell) != len(there.iloc[0]):
            return f"{name}: {len(cell)} numbers, the other items have {len(there.iloc[0])}"
    return None


def _with_put(items: pd.DataFrame, put: Sequence[Change], first: dict[str, int]) -> pd.DataFrame:
    """`first`: when each was put first (microseconds): from then on it is there, if nothing else is said."""
    if not put:
        return items
    begin = {key: pd.Timestamp(moment, unit="us", tz="UTC").isoformat() for key, moment in first.items()}
    for key in items.loc[items[tables.ITEM].isin(begin), tables.ITEM]:
        begin[key] = ""  # the source has it, too
    new = pd.DataFrame(
        [
            {
                tables.ITEM: each.key,
                tables.CATEGORIES: [],
                tables.AVAILABLE_FROM: begin[each.key] or None,
                **(each.content or {}),
            }
            for each in put
        ]
    )
    for name in (tables.AVAILABLE_FROM, tables.AVAILABLE_UNTIL):
        cells = new[name] if name in new else pd.Series(None, new.index, dtype=object)
        new[name] = pd.to_datetime(cells, utc=True, format="ISO8601").astype(tables.MOMENT)
    if tables.TAG_TIMES in items:  # each tag has a time then
        given = [(each.content or {}).get(tables.TAGS) or [] for each in put]
        moments = [pd.Timestamp(each.timestamp, unit="us", tz="UTC") for each in put]
        times = [[moment] * len(tags) for tags, moment in zip(given, moments, strict=True)]
        new[tables.TAG_TIMES] = pd.Series(times, new.index, dtype=object)
    kept = items[~items[tables.ITEM].isin(new[tables.ITEM])]
    items = pd.concat([kept, new], ignore_index=True)
    texts = [name for name in (tables.ITEM, tables.TITLE, tables.TEXT) if name in items]
    return items.astype(dict.fromkeys(texts, "str")).sort_values(tables.ITEM, ignore_index=True)
