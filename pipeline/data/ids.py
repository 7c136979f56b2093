"""Ids of users and items, and events: text as it stands, but for what nobody sees.

In: a pandas column of any type. An empty cell is missing; what is no id becomes missing, with a reason.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from pipeline.data.unseen import PLAIN, matching, tidied, tidy
from pipeline.data.values import MISSING, as_text

_GUID = r"\{[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\}"  # an id, as Windows writes it
_NESTED = rf"\[.*\]|(?!{_GUID})\{{.*\}}|\(.*,.*\)"  # [54, 55], {{"$oid": "5f"}}, (54, 55)
# 9.78E+12, as spreadsheets show and save a long number; 1e10 may be an id.
_ROUNDED = r"-?\d(?:[.,]\d+[eE]\+?|[eE]\+)\d{2,3}"


def as_ids(column: pd.Series) -> pd.Series:
    """Text as in `tidied`; leading zeros stay; 12345.0 of a float column is "12345"."""
    ids = tidied(as_text(column))
    ids = ids.mask(ids.isin(MISSING) | _inexact(column))
    return ids.mask(matching(ids, rf"{_NESTED}|{_ROUNDED}"))


def id_faults(column: pd.Series, name: str, ids: pd.Series | None = None) -> pd.Series:
    """Why a cell of as_ids is missing (no_user_id, user_id_is_a_list_or_object, ...), else None.

    `ids`: what as_ids made of the column, where that is known.
    """
    missing = (as_ids(column) if ids is None else ids).isna().to_numpy()
    reasons = pd.Series(None, column.index, dtype=object)
    if missing.any():
        bad = column[missing]
        text, found = tidied(as_text(bad)), pd.Series(f"no_{name}", bad.index, dtype=object)
        found[matching(text, _NESTED)] = f"{name}_is_a_list_or_object"
        found[matching(text, _ROUNDED)] = f"{name}_rounded_by_a_spreadsheet"
        found[_inexact(bad)] = f"{name}_rounded_as_a_float"
        reasons[missing] = found.to_numpy()
    return reasons


def changed(column: pd.Series) -> int:
    """Cells in which `tidied` changes more than white space at the ends."""
    text = as_text(column)
    text = text[text.notna() & ~matching(text, PLAIN)].str.strip()
    return int((text != tidied(text).fillna("")).sum())


def as_id(cell: str) -> str:
    """One id as in `as_ids`. Raises ValueError if it is none."""
    text = tidy(cell)
    if text in MISSING:
        raise ValueError("a word for no id")
    if re.fullmatch(rf"{_NESTED}|{_ROUNDED}", text):
        raise ValueError("a list, an object or a number that a spreadsheet rounded is no id")
    return text


def _inexact(column: pd.Series) -> pd.Series:
    """Which cells are floats beyond the integers that they tell apart."""
    kind = column.dtype
    if pd.api.types.is_float_dtype(kind):
        digits = np.finfo(getattr(kind, "numpy_dtype", kind)).nmant + 1
        return column.abs().gt(2.0**digits).fillna(False).astype(bool)
    if not pd.api.types.is_object_dtype(kind):
        return pd.Series(False, column.index)
    return column.map(
        lambda cell: isinstance(cell, float | np.floating) and abs(float(cell)) > 2.0**53
    ).astype(bool)
