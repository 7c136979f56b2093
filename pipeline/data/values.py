"""Columns of foreign files in our types: ids, numbers, moments, texts, lists of texts.

Each function takes a pandas column of any type and never raises: what cannot be read becomes missing, and
the caller sees which cells those are. An empty cell is always missing.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.tables import MOMENT

NO_ID = ["", "nan", "NaN", "null", "NULL", "None", "<NA>", "\\N"]  # how writers spell a missing value
NO_NUMBER = [*NO_ID, "NA", "N/A"]

_TRUTH = {
    word: str(value)
    for value, words in ((1, "true True TRUE"), (0, "false False FALSE"))
    for word in words.split()
}

# Epochs tell their unit by their size: 1973 to 5138 do not overlap (1e11 s is the year 5138, 1e11 ms 1973).
_MILLISECONDS, _MICROSECONDS, _NANOSECONDS = 10**11, 10**14, 10**17
_NEVER = np.iinfo(np.int64).min  # microseconds; numpy's NaT
_INTEGER = r"[+-]?\d{1,18}|[+-]?[1-8]\d{18}"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?"


def as_ids(column: pd.Series) -> pd.Series:
    """Text without surrounding blanks; leading zeros stay; 12345.0 of a float column is "12345"."""
    ids = as_text(column).str.strip()
    return ids.mask(ids.isin(NO_ID))


def as_text(column: pd.Series) -> pd.Series:
    """The cells as `str`, missing where empty. Text stays as it is."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_float_dtype(column.dtype):
        column = _float_text(column)
    elif column.dtype == object:
        column = column.map(_cell_text)
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column.map(lambda moment: moment.isoformat(), na_action="ignore")
    text = column.astype("str")
    return text.mask(text == "")


def as_prose(column: pd.Series) -> pd.Series:
    """as_text, but a list is its texts in one line (descriptions that come as lists of paragraphs)."""
    if column.dtype == object:
        column = column.map(
            lambda cell: " ".join(_flat(cell)) if isinstance(cell, list | np.ndarray) else cell
        )
    return as_text(column)


def as_numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """(float64, which cells hold something that is no finite number)."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.astype("float64")
        bad = np.isinf(numbers)
        return numbers.mask(bad), bad
    text = as_text(column).str.strip()
    text = text.mask(text.isin(NO_NUMBER)).replace(_TRUTH)
    numbers = pd.to_numeric(text, errors="coerce").astype("float64")
    numbers = numbers.mask(np.isinf(numbers))
    return numbers, text.notna() & numbers.isna()


def as_moments(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """(UTC microseconds, which cells hold something that is no moment).

    Epochs in s, ms, µs or ns, told by size, as numbers or digits; ISO 8601 with or without zone (without:
    UTC), dates alone, also 2011/01/31 and a final "UTC"; datetimes. Digits like 20110131 are dates where most
    numbers of that length in the column are days of the calendar, else epochs.
    """
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return pd.to_datetime(column, utc=True).astype(MOMENT), pd.Series(False, column.index)
    if pd.api.types.is_integer_dtype(column.dtype) and not column.isna().any():
        moments = _from_micros(_epochs(column.to_numpy(dtype=np.int64)), column.index)
        return moments, moments.isna()
    text = as_text(column).str.strip()
    text = text.mask(text.isin(NO_NUMBER))
    moments = pd.Series(pd.NaT, column.index, dtype=MOMENT)
    integers, numbers = _is(text, _INTEGER), _is(text, _NUMBER)
    kinds = [
        (integers, _from_integers),
        (numbers & ~integers, _from_floats),
        (_is(text, r"\d{4}[-/\d].*") & ~numbers, _from_iso),
    ]
    for rows, convert in kinds:
        if rows.any():
            moments[rows] = convert(text[rows])
    return moments, text.notna() & moments.isna()


def as_lists(column: pd.Series) -> pd.Series:
    """Lists of distinct texts: of a list, of text split at `|` or of text that spells a list; [] if empty."""
    return pd.Series([_list(cell) for cell in column], index=column.index, dtype=object)


def as_typed(column: pd.Series) -> pd.Series:
    """A further column of a text file: Int64 or float64 if every filled cell is such a number, else text.

    Leading zeros make text of a column ("0114709" is an id).
    """
    text = as_text(column)
    filled = text.dropna().str.strip()
    if len(filled) and filled.str.fullmatch(r"-?(?:0|[1-9]\d{0,14})").all():
        return pd.to_numeric(text).astype("Int64")
    if len(filled) and filled.str.fullmatch(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?").all():
        return pd.to_numeric(text).astype("float64")
    return text


def _float_text(column: pd.Series) -> pd.Series:
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    whole = np.isfinite(numbers) & (np.abs(numbers) < 2**63)
    whole[whole] = numbers[whole] == np.floor(numbers[whole])
    text = np.full(len(numbers), None, dtype=object)
    text[whole] = numbers[whole].astype(np.int64).astype(str)
    other = ~whole & ~np.isnan(numbers)
    text[other] = numbers[other].astype(str)
    return pd.Series(text, column.index)


def _cell_text(cell: Any) -> str | None:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, list | tuple | dict | np.ndarray):
        return json.dumps(cell, ensure_ascii=False, default=_plain)
    if pd.isna(cell):
        return None
    if hasattr(cell, "isoformat"):
        return str(cell.isoformat())
    if isinstance(cell, float | np.floating | Decimal) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    return str(cell)


def _plain(part: Any) -> Any:
    return part.tolist() if hasattr(part, "tolist") else str(part)


def _is(text: pd.Series, pattern: str) -> pd.Series:
    return text.str.fullmatch(pattern).fillna(False).astype(bool)


def _epochs(numbers: np.ndarray) -> np.ndarray:
    """int64 epochs of any unit -> microseconds."""
    days = (numbers >= 19000101) & (numbers <= 21001231)
    result = np.select(
        [np.abs(numbers) < _MILLISECONDS, np.abs(numbers) < _MICROSECONDS, np.abs(numbers) < _NANOSECONDS],
        [numbers * 1_000_000, numbers * 1_000, numbers],
        numbers // 1_000,
    )
    if days.any():
        calendar = pd.to_datetime(pd.Series(numbers[days].astype(str)), format="%Y%m%d", errors="coerce")
        if calendar.notna().mean() > 0.5:
            micros = calendar.astype("datetime64[us]").astype("int64").to_numpy()
            result[days] = np.where(calendar.isna(), _NEVER, micros)
    return result


def _from_integers(text: pd.Series) -> pd.Series:
    return _from_micros(_epochs(text.astype("int64").to_numpy()), text.index)


def _from_floats(text: pd.Series) -> pd.Series:
    numbers = text.astype("float64").to_numpy()
    size = np.abs(numbers)
    scale = np.select(
        [size < _MILLISECONDS, size < _MICROSECONDS, size < _NANOSECONDS], [1e6, 1e3, 1.0], 1e-3
    )
    valid = size < 9e18
    micros = np.full(len(numbers), _NEVER)
    micros[valid] = np.round(numbers[valid] * scale[valid]).astype(np.int64)
    return _from_micros(micros, text.index)


def _from_micros(micros: np.ndarray, index: pd.Index) -> pd.Series:
    return pd.Series(micros.view("datetime64[us]"), index).dt.tz_localize("UTC")


def _from_iso(text: pd.Series) -> pd.Series:
    if text.str.contains(r"[,/A-SU-Y]|\.\d{7}|^\d{4}-(?:\d\D|\d\d-\d(?:\D|$))|[T ]\d:", regex=True).any():
        text = (
            text.str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
            .str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", r"\1-\2-\3", regex=True)
            .str.replace(r"^(\d{4})-(\d)-", r"\1-0\2-", regex=True)
            .str.replace(r"^(\d{4}-\d\d)-(\d)(\D|$)", r"\1-0\2\3", regex=True)
            .str.replace(r"([T ])(\d):", r"\g<1>0\2:", regex=True)
            .str.replace(r"(:\d\d),(\d)", r"\1.\2", regex=True)
            .str.replace(
                r"(\.\d{6})\d+", r"\1", regex=True
            )  # nanoseconds would narrow the range to 1677-2262
        )
    return pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").astype(MOMENT)


def _list(cell: Any) -> list[str]:
    if isinstance(cell, str):
        return _distinct(_spelled(cell))
    if isinstance(cell, list | tuple | np.ndarray):
        return _distinct(_flat(cell))
    return [] if cell is None or cell is pd.NA or cell != cell else _distinct([str(cell)])


def _spelled(text: str) -> Iterable[str]:
    """`A|B`, `["A", "B"]` or `['A', 'B']`."""
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                return _flat(read(text))
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return text.split("|")


def _flat(cells: Iterable[Any]) -> Iterable[str]:
    for cell in cells:
        if isinstance(cell, list | tuple | np.ndarray):
            yield from _flat(cell)
        elif cell is not None and cell == cell:
            yield str(cell)


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))
