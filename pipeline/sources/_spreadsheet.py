"""Workbooks of Excel, sheet by sheet and row by row, by openpyxl: cells as they are typed there."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd

from pipeline.errors import DataError
from pipeline.sources import PLACE, RAW, REASON
from pipeline.sources._delimited import RAW_CHARACTERS, WRONG_FIELDS, distinct

ROWS = 50_000  # of a chunk
Row = tuple[int, tuple[Any, ...]]  # its number in the sheet, its cells


def read(
    stream: IO[bytes], path: Path, sheet: str | None, names: tuple[str, ...] | None
) -> Iterator[pd.DataFrame]:
    """Frames of objects, at least one. Raises DataError if it cannot be told which sheet."""
    book = _workbook(stream, path)
    try:
        rows = _filled_rows(_sheet(book, path, sheet))
        if names is None:
            first = next(rows, None)
            if first is None:
                raise DataError(f"{path}: an empty sheet: bring one with a header and rows")
            names = distinct(["" if cell is None else str(cell) for cell in first[1]])
        yield from _frames(rows, path.name, names)
    finally:
        book.close()


def _workbook(stream: IO[bytes], path: Path) -> Any:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and rules for input, which are no data
            return load_workbook(stream, read_only=True, data_only=True)
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


def _filled_rows(sheet: Any) -> Iterator[Row]:
    """Without empty rows and without empty cells at a row's end."""
    sheet.reset_dimensions()  # what writers say of them is not to be trusted
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        width = max((place for place, cell in enumerate(cells, 1) if cell not in (None, "")), default=0)
        if width:
            yield number, cells[:width]


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
