"""What a service showed and what came of it, as a table: a row of every place of every list.

impression_id, timestamp, user_id (null: asked without one), version, model (champion, or interleaved: and the
challenger's version), rank, item_id, score (null: by popularity), propensity, placed_by (the version that
placed the item), event and value of the last reaction that names list and item (null: none).
"""

from __future__ import annotations

import json

import pandas as pd

from pipeline.data import tables

LIST = "impression_id"
OF_REACTION = (tables.EVENT, tables.VALUE)
AT_ONCE = 20_000  # lists
TYPES = {
    LIST: "str",
    tables.TIME: tables.MOMENT,
    tables.USER: "str",
    "version": "str",
    "model": "str",
    "rank": "int32",
    tables.ITEM: "str",
    "score": "float64",
    "propensity": "float64",
    "placed_by": "str",
    tables.EVENT: "str",
    tables.VALUE: "float64",
}


def impressions(lists: pd.DataFrame, reactions: pd.DataFrame) -> pd.DataFrame:
    """Of an event store's `lists` and `reactions`, whose times are microseconds; sorted, so that the same
    content gives the same bytes."""
    chunks = (lists.iloc[begin : begin + AT_ONCE] for begin in range(0, len(lists), AT_ONCE))
    table = pd.concat([none().drop(columns=list(OF_REACTION)), *map(_places, chunks)], ignore_index=True)
    last = reactions.sort_values(tables.TIME, kind="stable").drop_duplicates([LIST, tables.ITEM], keep="last")
    last = last[[LIST, tables.ITEM, *OF_REACTION]].dropna(subset=LIST)
    keys = {name: "str" for name in (LIST, tables.ITEM)}
    table = table.merge(last.astype(keys), "left", on=list(keys)).astype(TYPES)
    return table.sort_values([tables.TIME, LIST, "rank"], ignore_index=True)


def _places(lists: pd.DataFrame) -> pd.DataFrame:
    """A row of each place; few lists at once, since rows of Python's objects are large."""
    rows = [
        (*shown[:5], place[1], place[0], place[2], place[3], place[4] if len(place) > 4 else shown[3])
        for shown in lists[[LIST, tables.TIME, tables.USER, "version", "model", "items"]].itertuples(
            index=False, name=None
        )
        for place in json.loads(shown[5])
    ]
    table = pd.DataFrame(rows, columns=[name for name in TYPES if name not in OF_REACTION])
    table[tables.TIME] = pd.to_datetime(table[tables.TIME].astype("int64"), unit="us", utc=True)
    return table.astype({name: TYPES[name] for name in table})


def none() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TYPES.items()})
