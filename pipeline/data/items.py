"""The catalogue: every item of the table and of the data, with one text each made by a template.

In: items (the contract's columns and any others, of which `year`, and `tags` with `tag_times`, have a
meaning) and the items of the interactions. Out: the same columns by item_id, plus `item_text` ("" if there is
none), `year` (nullable; from a title that ends in "(1995)" where the table has none) and `first_seen` (first
row in train; null for an item that train lacks). Of tags, only those given before the end of train enter the
text. Columns and relations that `preprocess.never_features` names are not among them: what a model sees of
items is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.keywords import with_keywords
from pipeline.data.text import Template, clean, cut
from pipeline.errors import ConfigError, DataError

DESCRIPTION = "description"  # what the template calls the column `text`
ITEM_TEXT, FIRST_SEEN = "item_text", "first_seen"
TOP_TAGS = 10
_QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
_FINAL_YEAR = r"\s*\((\d{4})\)$"


def parse_template(template: str, columns: Iterable[str], never: Collection[str] = ()) -> Template:
    """Over title, year, categories, description (the column `text`), tags and any further column of items."""
    fields = {tables.TITLE, tables.YEAR, tables.CATEGORIES, DESCRIPTION, tables.TAGS, *columns}
    found = Template.parse(template, fields - {tables.ITEM, tables.TAG_TIMES}, "preprocess.item_text")
    if forbidden := [name for name in found.fields if name in never]:
        raise ConfigError(
            f"preprocess.item_text: {{{forbidden[0]}}} is a column that preprocess.never_features names: "
            "take it out of one of the two"
        )
    return found


def complete(items: pd.DataFrame, seen: pd.DataFrame, never: Collection[str] = ()) -> pd.DataFrame:
    """One row per item of either table, by item_id; `seen`: item_id, first_seen. Adds `year`, `first_seen`.
    Leaves out the columns and relations `never`.

    Raises DataError if an item has two rows.
    """
    twice = items[tables.ITEM][items[tables.ITEM].duplicated()]
    if len(twice):
        raise DataError(f"items, column item_id: {twice.iloc[0]!r} has two rows: run `dvc repro -f collect`")
    ids = np.union1d(items[tables.ITEM].to_numpy(dtype=object), seen[tables.ITEM].to_numpy(dtype=object))
    table = items.set_index(tables.ITEM).reindex(ids).rename_axis(tables.ITEM).reset_index()
    table[tables.ITEM] = table[tables.ITEM].astype("str")
    for name in tables.ITEMS:
        table[name] = table.get(name)
    for name in (tables.AVAILABLE_FROM, tables.AVAILABLE_UNTIL):
        table[name] = pd.to_datetime(table[name], utc=True).astype(tables.MOMENT)
    table[[tables.TITLE, tables.TEXT]] = table[[tables.TITLE, tables.TEXT]].astype("str")
    table[tables.CATEGORIES] = table[tables.CATEGORIES].map(_as_list)
    table[tables.YEAR] = _years(table)
    first = seen.set_index(tables.ITEM)[FIRST_SEEN].reindex(ids).reset_index(drop=True)
    table[FIRST_SEEN] = pd.to_datetime(first, utc=True).astype(tables.MOMENT)
    return _without(table, never)


def _without(items: pd.DataFrame, never: Collection[str]) -> pd.DataFrame:
    items = items.drop(columns=[name for name in never if name in items and name != tables.YEAR])
    if tables.YEAR in never:
        items = items.assign(**{tables.YEAR: pd.Series(pd.NA, items.index, dtype="Int64")})
    if not never or not set(tables.GRAPH) <= set(items):
        return items
    pairs = [zip(*map(_as_list, cells), strict=True) for cells in items[tables.GRAPH].to_numpy()]
    kept = [[pair for pair in cell if pair[0] not in never] for cell in pairs]
    columns = {
        name: pd.Series([[pair[side] for pair in cell] for cell in kept], items.index, dtype=object)
        for side, name in enumerate(tables.GRAPH)
    }
    return items.assign(**columns)


def with_text(
    items: pd.DataFrame,
    template: Template,
    max_characters: int,
    train_end: pd.Timestamp,
    keywords: int = 0,
) -> pd.DataFrame:
    """Adds `item_text` to items as `complete` gives them. Each distinct value is cleaned once.

    `keywords`: how many of each item's text are added as well, with its names (pipeline/data/keywords.py).
    """
    if keywords:
        items = with_keywords(items, keywords, max_characters)
    texts = {field: _texts(items, field, template, max_characters, train_end) for field in template.fields}
    rows = zip(*texts.values(), strict=True) if texts else ((),) * len(items)
    filled = [cut(template.render(dict(zip(texts, row, strict=True))), max_characters) for row in rows]
    return items.assign(**{ITEM_TEXT: pd.Series(filled, items.index, dtype="str")})


def count_items(items: pd.DataFrame, rows_in_table: int, train_end: pd.Timestamp) -> dict[str, Any]:
    """What summary.json says about items as `with_text` gives them."""
    length = items[ITEM_TEXT].str.len()
    lengths = length[length > 0]
    tags = _tags(items)
    return {
        "items": len(items),
        "in_table": rows_in_table,
        "without_row_in_table": len(items) - rows_in_table,
        "in_train": int(items[FIRST_SEEN].notna().sum()),
        "without_title": int(items[tables.TITLE].isna().sum()),
        "without_text": int((length == 0).sum()),
        "with_year": int(items[tables.YEAR].notna().sum()),
        "tags": len(tags),
        "tags_not_before_train_end": len(tags) - int(_before(tags, train_end).sum()),
        "text_characters": {
            f"{share:g}": float(lengths.quantile(share)) if len(lengths) else None for share in _QUANTILES
        },
    }


def _years(items: pd.DataFrame) -> pd.Series:
    """Int64: the column `year`, else the year that the title ends in."""
    in_title = items[tables.TITLE].str.strip().str[-6:].str.extract(_FINAL_YEAR, expand=False)
    year = pd.to_numeric(in_title, errors="coerce").astype("float64")
    if tables.YEAR in items:
        given = pd.to_numeric(items[tables.YEAR], errors="coerce").astype("float64")
        year = given.where(given.between(1, 9999) & (given % 1 == 0)).fillna(year)
    return year.astype("Int64")


def _texts(
    items: pd.DataFrame, field: str, template: Template, max_characters: int, train_end: pd.Timestamp
) -> list[str]:
    """A field's clean text per item, "" where it has none."""
    if field == tables.TAGS:
        return _tag_texts(items, max_characters, train_end)
    column = tables.TEXT if field == DESCRIPTION and DESCRIPTION not in items else field
    if column not in items:
        return [""] * len(items)
    texts = _each_distinct(items[column], lambda value: _plain(value, max_characters))
    if field == tables.TITLE and tables.YEAR in template.fields:
        # The template says the year itself.
        titles = pd.Series(texts, items.index, dtype="str")
        ended = titles.str.strip().str[-6:] == "(" + items[tables.YEAR].astype("str") + ")"
        return titles.where(~ended.fillna(False).astype(bool), titles.str[:-6].str.rstrip()).tolist()
    return texts


def _tag_texts(items: pd.DataFrame, max_characters: int, train_end: pd.Timestamp) -> list[str]:
    """The ten most frequent tags of each item, distinct but for upper case; ties by the alphabet."""
    tags = _tags(items)
    tags = tags[_before(tags, train_end)]
    texts = _each_distinct(tags["tag"], lambda value: _plain(value, max_characters))
    tags = tags[["place"]].assign(tag=pd.Series(texts, tags.index, dtype="str"))
    tags = tags[tags["tag"] != ""]
    tags = tags.assign(key=tags["tag"].str.casefold())
    counted = tags.groupby(["place", "key"], as_index=False).agg(rows=("tag", "size"), tag=("tag", "min"))
    counted = counted.sort_values(["place", "rows", "key"], ascending=[True, False, True])
    chosen = counted.groupby("place").head(TOP_TAGS)
    return chosen.groupby("place")["tag"].agg(", ".join).reindex(range(len(items)), fill_value="").tolist()


def _tags(items: pd.DataFrame) -> pd.DataFrame:
    """place (of the item), tag, time (absent if the table has none). Raises DataError if they do not pair."""
    lists = (
        [_as_list(tags) for tags in items[tables.TAGS]]
        if tables.TAGS in items
        else [[] for _ in range(len(items))]
    )
    place = np.repeat(np.arange(len(items)), [len(tags) for tags in lists])
    table = pd.DataFrame({"place": place, "tag": pd.Series(list(chain(*lists)), dtype="object")})
    if tables.TAG_TIMES not in items:
        return table
    times = [_as_list(times) for times in items[tables.TAG_TIMES]]
    for item, tags, moments in zip(items[tables.ITEM], lists, times, strict=True):
        if len(tags) != len(moments):
            raise DataError(
                f"items, column tag_times: item {item!r} has {len(tags)} tags and {len(moments)} times: "
                "give one time for each tag, or no tag_times at all"
            )
    return table.assign(time=pd.to_datetime(pd.Series(list(chain(*times)), dtype="object"), utc=True))


def _before(tags: pd.DataFrame, train_end: pd.Timestamp) -> pd.Series:
    """Known before the end of train: tags without any times are, a tag whose own time is null is not."""
    return tags["time"] < train_end if "time" in tags else pd.Series(True, tags.index)


def _each_distinct(values: pd.Series, function: Callable[[Any], str]) -> list[str]:
    keys: list[Hashable] = [
        tuple(value) if isinstance(value, (list, np.ndarray)) else value for value in values
    ]
    known = {key: function(key) for key in set(keys)}
    return [known[key] for key in keys]


def _plain(value: Any, max_characters: int) -> str:
    """Any cell as clean text: lists joined by commas without repeats, 5.0 as 5, a moment as its day."""
    if isinstance(value, tuple):
        parts = (_plain(part, max_characters) for part in value)
        return ", ".join(dict.fromkeys(part for part in parts if part))
    if pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return clean(str(value.date() if isinstance(value, pd.Timestamp) else value), max_characters)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, np.ndarray)) else []
