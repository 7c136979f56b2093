"""`evergreen drift`: the drift check on any two interaction tables, without a model.

In: files of one table each (Parquet, text, JSON lines, workbooks) with the contract's column names, or those
that collect.files maps to them, written as it says. Out: what `pipeline.drift.check` says, each table being
one window. Of `event`, `value` and `text` those that both tables lack are taken for empty. A cell that cannot
be read makes the table a bad one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import hints, values
from pipeline.data.ids import as_ids
from pipeline.data.moments import as_moments
from pipeline.data.tables import CATEGORIES, EVENT, INTERACTIONS, ITEM, TEXT, TIME, TITLE, USER, VALUE
from pipeline.data.time_format import TimeFormat
from pipeline.documents.drift import Drift
from pipeline.drift.check import check
from pipeline.errors import DataError
from pipeline.file_settings import TABLES, Files, Table
from pipeline.params import DetectDrift
from pipeline.sources import PLACE, RAW, REASON
from pipeline.sources._columns import OWNERS, REQUIRED, inner_names, plans, time_formats
from pipeline.sources._formats import Reading, frames, reading

OPTIONAL = {EVENT: "interaction", VALUE: np.nan, TEXT: None}

_REASONS = {VALUE: "value_not_a_number", TIME: "unreadable_timestamp"}


def compare(
    reference: Path,
    current: Path,
    items: Path | None,
    settings: DetectDrift,
    seed: int,
    files: Files | None = None,
) -> Drift:
    """Raises DataError if a file is not there; a table that is no such table is the outcome bad_input."""
    tables = {}
    for name, path in (("reference", reference), ("current", current), ("items", items)):
        if path is not None:
            tables[name] = _read(path, f"--{name}", "items" if name == "items" else "interactions", files)
    try:
        columns = files.columns if files else {}
        old = _named(tables["reference"], "interactions", columns, str(reference))
        new = _named(tables["current"], "interactions", columns, str(current))
        absent = {name: filling for name, filling in OPTIONAL.items() if name not in old and name not in new}
        decimal = files.decimal if files else None
        said = time_formats(columns).get(TIME)  # of the source's columns, not of those that have our names
        both = [
            _interactions(table, absent, str(path), decimal, None if table is tables[name] else said)
            for table, path, name in ((old, reference, "reference"), (new, current, "current"))
        ]
        catalogue = items and _items(_named(tables["items"], "items", columns, str(items)), str(items))
    except DataError as error:
        return Drift(outcome="bad_input", drift=False, text=str(error))
    return check(both[0], both[1], catalogue, settings, seed, confirm=False)


def _read(path: Path, option: str, table: Table, files: Files | None) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{option} {path}: no such file")
    how = reading(files, table, inner_names(files.columns)) if files else Reading()
    return pd.concat(frames(path, how), ignore_index=True)


def _named(table: pd.DataFrame, kind: str, columns: Mapping[str, Any], where: str) -> pd.DataFrame:
    """Under the contract's names: as it is if it has them, else as far as collect.files.columns maps them."""
    names = [name for name in table if name not in (PLACE, RAW, REASON)]
    if set(REQUIRED[kind]) <= set(names):
        return table

    def concerns(key: str, value: Any) -> bool:
        said_of, _, ours = key.rpartition(".")
        constant = isinstance(value, dict) and kind == "interactions"
        fits = said_of == kind or (not said_of and kind in OWNERS.get(ours, TABLES))
        return fits and (constant or value in names)

    own = {key: value for key, value in columns.items() if concerns(key, value)}
    if not own:
        return table
    return plans(own, {kind: {where: names}}, items_inside=False)[kind][where].apply(table)


def _whole(table: pd.DataFrame, needed: Iterable[str], where: str) -> pd.DataFrame:
    """Without the reader's own columns. Raises DataError if a line could not be read, or a column lacks."""
    if REASON in table and (broken := table[REASON].notna()).any():
        place, reason = table.loc[broken, [PLACE, REASON]].iloc[0]
        said = f"{int(broken.sum())} of {len(table)} lines cannot be read, the first {place} ({reason})"
        raise DataError(f"{where}: {said}: mend or remove them")
    table = table.drop(columns=[PLACE, RAW, REASON], errors="ignore")
    if missing := [name for name in needed if name not in table]:
        said = f"no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}"
        raise DataError(
            f"{where}: {said}: name its columns like those of data/raw, or map them in collect.files.columns"
        )
    return table


def _interactions(
    table: pd.DataFrame, absent: dict[str, Any], where: str, decimal: str | None, said: TimeFormat | None
) -> pd.DataFrame:
    table = _whole(table, (name for name in INTERACTIONS if name not in absent), where).assign(**absent)
    numbers, no_number = values.as_numbers(table[VALUE], decimal)
    moments, no_moment = as_moments(table[TIME], said=said)
    ids = {name: as_ids(table[name]) for name in (USER, ITEM)}
    bad = {
        VALUE: no_number,
        TIME: no_moment | moments.isna(),
        **{name: column.isna() for name, column in ids.items()},
    }
    for name, cells in bad.items():
        if cells.any():
            some = values.as_text(table[name])[cells].dropna().head(100).tolist()
            advice = hints.of(_REASONS.get(name, ""), some, name) or "mend or remove these rows"
            example = f", like {some[0]!r}" if some else ""
            raise DataError(
                f"{where}: column {name}: {int(cells.sum())} of {len(cells)} cells cannot be read{example}: "
                f"{advice}"
            )
    words = {EVENT: values.as_text(table[EVENT]).fillna(""), TEXT: values.as_text(table[TEXT])}
    return table.assign(**ids, **words, **{VALUE: numbers, TIME: moments})


def _items(table: pd.DataFrame, where: str) -> pd.DataFrame:
    table = _whole(table, [ITEM], where)
    changed = {ITEM: as_ids(table[ITEM])}
    changed |= {name: values.as_prose(table[name]) for name in (TITLE, TEXT) if name in table}
    if CATEGORIES in table:
        changed[CATEGORIES] = values.as_lists(table[CATEGORIES])
    return table.assign(**changed)
