"""Interactions and items as the drift check needs them, or a DataError that says what is wrong with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.drift.signals import percent
from pipeline.errors import DataError

MOSTLY = 0.5  # a column that has so many values and then none at all is broken


def tidy(frame: Any, where: str) -> pd.DataFrame:
    """The interactions' columns in the contract's types. Raises DataError if that is impossible."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{where}: no table")
    missing = [name for name in tables.INTERACTIONS if name not in frame]
    if missing:
        raise DataError(f"{where}: no column {', '.join(missing)}")
    if not len(frame):
        raise DataError(f"{where}: no rows")
    changed = {}
    try:
        for name in (tables.USER, tables.ITEM, tables.EVENT, tables.TEXT):
            if frame[name].dtype != "str":
                changed[name] = frame[name].astype("str")
        changed[tables.VALUE] = pd.to_numeric(frame[tables.VALUE]).astype("float64")
        if frame[tables.TIME].dtype != tables.MOMENT:
            changed[tables.TIME] = pd.to_datetime(frame[tables.TIME], utc=True).astype(tables.MOMENT)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {str(error).splitlines()[0]}") from None
    frame = frame.assign(**changed)
    if np.isinf(frame[tables.VALUE].to_numpy()).any():
        raise DataError(f"{where}: column value: infinite")
    return tables.check(frame, "interactions", where)


def tidy_items(items: pd.DataFrame) -> pd.DataFrame:
    if tables.ITEM not in items:
        raise DataError("items: no column item_id")
    items = items.assign(**{tables.ITEM: items[tables.ITEM].astype("str")})
    if items[tables.ITEM].isna().any():
        raise DataError("items: column item_id: empty cells")
    return items.drop_duplicates(tables.ITEM, ignore_index=True)


def not_emptied(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    for name in (tables.VALUE, tables.TEXT):
        if current[name].isna().all() and reference[name].isna().mean() <= MOSTLY:
            raise DataError(
                f"current: column {name}: every cell is empty, in the reference "
                f"{percent(reference[name].notna().mean())} are filled"
            )


def kind(column: pd.Series) -> str | None:
    """Coarsely what a column holds: integers become floats where a cell is empty. None: nothing."""
    if column.isna().all():
        return None
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "numbers"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "times"
    return "texts" if pd.api.types.is_string_dtype(column.dtype) else "other things"
