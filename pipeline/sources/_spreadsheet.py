"""Workbooks of Excel, sheet by sheet and row by row, by openpyxl: cells as they are typed there."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import pandas as pd

from pipeline.data import tables
from pipeline.data.values import UNCOMPUTED
from pipeline.errors import DataError
from pipeline.sources import PLACE, RAW, REASON
from pipeline.sources._delimited import RAW_CHARACTERS, WRONG_FIELDS, distinct

ROWS = 50_000  # of a chunk
SINCE_1904 = "since_1904"  # a frame's attribute: the workbook counts days from there, as old ones of macOS do
_LATER = 1462  # days from the start of the usual system to that of 1904
_TIMES = (tables.TIME, tables.AVAILABLE_FROM, tables.AVAILABLE_UNTIL)
Row = tuple[int, tuple[Any, ...]]  # its number in the sheet, its cells


def read(
    stream: IO[bytes], path: Path, sheet: str | None, names: tuple[str, ...] | None
) -> Iterator[pd.DataFrame]:
    """Frames of objects, at least one. Raises DataError if it cannot be told which sheet."""
    book = _workbook(stream, path)
    formulas = _workbook(stream, path, computed=False) if _has_formulas(stream) else None
    try:
        table = _sheet(book, path, sheet)
        rows = _filled_rows(table, None if formulas is None else formulas[table.title])
        if names is None:
            first = next(rows, None)
            if first is None:
                raise DataError(f"{path}: an empty sheet: bring one with a header and rows")
            names = distinct(["" if cell is None else str(cell) for cell in first[1]])
        for frame in _frames(rows, path.name, names):
            frame.attrs[SINCE_1904] = book.epoch.year == 1904
            yield frame
    finally:
        book.close()
        if formulas is not None:
            formulas.close()


def usual_days(rows: pd.DataFrame, attributes: Mapping[Any, Any]) -> pd.DataFrame:
    """Rows under our names, whose times that are bare numbers count days from 1900, as others' do.

    Cells that are formatted as dates came as dates. `attributes`: of the frame that `read` gave.
    """
    if not attributes.get(SINCE_1904):
        return rows
    there = [name for name in _TIMES if name in rows]
    return rows.assign(**{name: rows[name].map(_since_1900) for name in there})


def _since_1900(cell: Any) -> Any:
    """1991 to 2032 in days since 1904 meets no other unit."""
    is_day = isinstance(cell, int | float) and not isinstance(cell, bool) and 31_777 <= cell < 46_752
    return cell + _LATER if is_day else cell


def _has_formulas(stream: IO[bytes]) -> bool:
    with zipfile.ZipFile(stream) as packed:
        sheets = [name for name in packed.namelist() if name.startswith("xl/worksheets/")]
        return any(re.search(rb"<f[ >]", packed.read(name)) for name in sheets)


def _workbook(stream: IO[bytes], path: Path, computed: bool = True) -> Any:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and rules for input, which are no data
            return load_workbook(stream, read_only=True, data_only=computed)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError):
        raise DataError(f"{path}: no readable workbook: save it anew as .xlsx, without a password") from None


def _sheet(book: Any, path: Path, name: str | None) -> Any:
    there = ", ".join(sheet.title for sheet in book.worksheets)
    if name is not None:
        chosen = [sheet for sheet in book.worksheets if sheet.title == name]
    else:
        chosen = [sheet for sheet in book.worksheets if next(_filled_rows(sheet), None)]
    if len(chosen) == 1:
        return chosen[0]
    what = f"no sheet {name!r}" if name else "several sheets with rows" if chosen else "no sheet with rows"
    raise DataError(f"{path}: {what}: name the table's in collect.files.sheet; there are {there}")


def _filled_rows(sheet: Any, formulas: Any = None) -> Iterator[Row]:
    """Without empty rows and without empty cells at a row's end; `formulas`: the sheet as it was typed."""
    for number, cells in enumerate(_rows(sheet), 1) if formulas is None else _computed(sheet, formulas):
        width = max((place for place, cell in enumerate(cells, 1) if cell not in (None, "")), default=0)
        if width:
            yield number, cells[:width]


def _rows(sheet: Any) -> Iterator[tuple[Any, ...]]:
    sheet.reset_dimensions()  # what writers say of them is not to be trusted
    yield from sheet.iter_rows(values_only=True)


def _computed(sheet: Any, formulas: Any) -> Iterator[Row]:
    """Rows in which a formula without a result, which some writers leave so, is no empty cell."""
    for number, (cells, typed) in enumerate(zip(_rows(sheet), _rows(formulas), strict=True), 1):
        both = zip_longest(cells, typed)
        yield number, tuple(UNCOMPUTED if one is None and _is_formula(other) else one for one, other in both)


def _is_formula(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith("=")


def _frames(rows: Iterator[Row], file: str, names: tuple[str, ...]) -> Iterator[pd.DataFrame]:
    chunk: list[dict[str, Any]] = []
    seen = False
    for number, cells in rows:
        row: dict[str, Any] = dict(zip(names, cells, strict=False))
        if len(cells) > len(names):
            row = {REASON: WRONG_FIELDS, RAW: ", ".join(map(str, cells))[:RAW_CHARACTERS]}
        chunk.append({**row, PLACE: f"{file}:{number}"})
        if len(chunk) == ROWS:
            seen = True
            yield _frame(chunk, names)
            chunk = []
    if chunk or not seen:
        yield _frame(chunk, names)


def _frame(rows: list[dict[str, Any]], names: tuple[str, ...]) -> pd.DataFrame:
    own = [PLACE, *([REASON, RAW] if any(REASON in row for row in rows) else [])]
    cells = {name: [row.get(name) for row in rows] for name in (*names, *own)}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in cells.items()})
