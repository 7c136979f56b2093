"""Columns of items that end in `_vector`: numbers of one modality, as many for each item that has any."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.values import MISSING
from pipeline.errors import DataError

EMPTY, NONE = -1, -2  # instead of a cell's length; NONE: it is no vector


def with_vectors(items: pd.DataFrame) -> pd.DataFrame:
    """`items` with these columns as lists of numbers, None where a cell is empty or all zeros.

    Lists, or text: a list as JSON or numpy write it, or numbers with one sign of `|`, `;`, `,` or blanks
    between.
    Raises DataError naming item and column where a cell is none, or has another length.
    """
    columns = {}
    for name in (name for name in items if name.endswith(tables.VECTOR)):
        cells = [_numbers(cell) for cell in items[name]]
        lengths = np.array([EMPTY if cell is None else len(cell) or NONE for cell in cells])
        length = int(np.bincount(lengths[lengths > 0]).argmax()) if (lengths > 0).any() else 0
        wrong = np.flatnonzero((lengths != EMPTY) & (lengths != length))
        if len(wrong):
            raise DataError(_wrong(items, name, int(wrong[0]), length))
        kept = [cell if cell is not None and any(cell) else None for cell in cells]
        columns[name] = pd.Series(kept, items.index, dtype=object)
    return items.assign(**columns)


def _numbers(cell: object) -> list[float] | None:
    """None of an empty cell, [] of what is no vector."""
    if isinstance(cell, str):
        text = cell.strip()
        if not text or text in MISSING:
            return None
        try:
            cell = json.loads(text) if text.startswith("[") and "," in text else None
        except ValueError:
            return []
        if cell is None:  # one sign parts all: "0,1|0,2" holds two decimal commas, not four numbers
            text = text.strip("[](){} ")
            cell = text.split(next((sign for sign in "|;," if sign in text), None))
    if isinstance(cell, list | tuple | np.ndarray):
        try:
            found = np.asarray(cell, dtype=np.float32)
        except (TypeError, ValueError):
            return []
        return found.tolist() if found.ndim == 1 and np.isfinite(found).all() else []
    return None if cell is None or cell is pd.NA or cell != cell else []


def _wrong(items: pd.DataFrame, name: str, place: int, length: int) -> str:
    cell = str(items[name].iloc[place])
    told = f"{cell[:40]}{'...' if len(cell) > 40 else ''}"
    wanted = f"{length} finite numbers, as most cells are" if length else "finite numbers"
    return (
        f"items, column {name}: item {items[tables.ITEM].iloc[place]!r} has {told!r}, not {wanted}: "
        f"mend or empty the cell; anything else needs a name that does not end in {tables.VECTOR}"
    )
