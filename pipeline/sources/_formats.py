"""Files of one table, opened by their extension, in chunks: text, JSON lines, Parquet, workbooks; also .gz.

A frame gets two kinds of further columns: fields of objects that the mapping names (`user.id`), and the
partition of a file in a folder like `year=2020`, as Hive and Spark write them.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.unseen import tidy
from pipeline.data.values import as_text
from pipeline.errors import ConfigError, DataError
from pipeline.file_settings import Files, Table
from pipeline.sources import PLACE, RAW, REASON, _delimited, _spreadsheet
from pipeline.sources._text import UTF_8, readable

ROWS = 250_000  # a chunk of Parquet
JSON_LINES = 50_000  # a chunk of JSON lines
KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
}
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".lz4")
TEXTS = ("csv", "tsv")  # whose cells are text, whatever they say
# int64 of Arrow with empty cells would become float64 and lose digits of long ids.
_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


@dataclass(frozen=True)
class Reading:
    """What collect.files says of one table's files; None: as the files themselves show."""

    encoding: str | None = None
    delimiter: str | None = None
    header: tuple[str, ...] | None = None
    sheet: str | None = None
    fields: tuple[str, ...] = ()
    """Names that may be those of a field in an object: `user.id`."""

    def dialect(self, kind: str) -> _delimited.Dialect:
        return _delimited.Dialect(
            self.delimiter or ("\t" if kind == "tsv" else ""),
            self.header,
            literal_quotes=kind == "tsv",
            encoding=self.encoding or UTF_8,
        )


def reading(files: Files, table: Table, fields: tuple[str, ...] = ()) -> Reading:
    return Reading(
        files.encoding.get(table),
        files.delimiter.get(table),
        files.header.get(table),
        files.sheet.get(table),
        fields,
    )


def matching(pattern: str, key: str) -> list[Path]:
    """The files of a path or glob, sorted. Raises DataError naming the params key if there is none."""
    if not has_magic(pattern):
        path = Path(pattern)
        if path.is_dir():
            raise DataError(f"{path}: a folder: name its files, like {path}/*.csv, in {key}")
        if not path.exists():
            raise DataError(f"{path}: no such file: correct {key}")
        return [path]
    paths = sorted(Path(name) for name in glob(pattern, recursive=True) if Path(name).is_file())
    if not paths:
        raise DataError(f"{pattern}: no file matches: correct {key}")
    return paths


def kind(path: Path) -> str:
    """csv, tsv, jsonl, parquet or workbook. Raises ConfigError for another extension."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    what = KINDS.get(suffixes[-1]) if suffixes else None
    if suffixes and suffixes[-1] in (".xls", ".xlsb", ".ods"):
        raise ConfigError(f"{path}: an unknown kind of workbook: save it as .xlsx and name that file")
    if suffixes and suffixes[-1] in ARCHIVES:
        raise ConfigError(f"{path}: an archive: unpack it; of archives only .gz is read as it is")
    if what is None:
        raise ConfigError(
            f"{path}: unknown kind of file: bring {', '.join(KINDS)} (also .gz); rename it if it is such a "
            "file, else convert it"
        )
    return what


def frames(path: Path, how: Reading = Reading()) -> Iterator[pd.DataFrame]:
    """Chunks with the file's own column names and `_place`; at least one, perhaps without rows."""
    partition = partition_of(path)
    with _opened(path) as stream:
        for frame in map(_tidy_names, _plain_frames(stream, path, how)):
            for name in how.fields:
                if (cells := _field(frame, name)) is not None:
                    frame[name] = cells
            if partition:  # files in several folders may be called alike
                frame[PLACE] = "/".join(part for part in path.parts[:-1] if "=" in part) + "/" + frame[PLACE]
            yield frame.assign(**{name: cell for name, cell in partition.items() if name not in frame})


def columns(path: Path, how: Reading = Reading()) -> list[str]:
    """The file's column names; of JSON lines those of the first chunk."""
    if kind(path) == "parquet" and not how.fields:
        with _opened(path) as stream:
            names = [tidy(name) for name in _parquet_file(stream, path).schema_arrow.names]
        return list(dict.fromkeys([*names, *partition_of(path)]))
    first = next(frames(path, how))
    return [name for name in first.columns if name not in (PLACE, REASON, RAW)]


def partition_of(path: Path) -> dict[str, str | None]:
    """{"year": "2020", "month": "01"} of a file in folders year=2020/month=01."""
    pairs = [part.partition("=") for part in path.parts[:-1] if re.fullmatch(r"\w[^=]*=.*", part)]
    return {name: None if cell == "__HIVE_DEFAULT_PARTITION__" else unquote(cell) for name, _, cell in pairs}


def _field(frame: pd.DataFrame, path: str) -> pd.Series | None:
    """The cells of `user.id`: of a column called so, or a field in objects of `user`; None without any.

    Raises DataError where a row has both and they differ.
    """
    found: pd.Series | None = None
    for name in [name for name in frame if path == name or path.startswith(f"{name}.")]:
        inside = partial(_inside, path=path.removeprefix(f"{name}."))
        cells = frame[name] if name == path else frame[name].map(inside).astype(object)
        if found is not None:
            both = found.notna() & cells.notna()
            if (differ := both & (as_text(found) != as_text(cells))).any():
                raise DataError(
                    f"{frame[PLACE][differ].iloc[0]}: a field {path!r} and another in an object of "
                    "that path, which differ: rename one of them"
                )
            cells = found.where(found.notna(), cells)
        found = cells if cells.notna().any() else found
    return found


def _inside(cell: Any, path: str) -> Any:
    """What an object holds at a path; names with a point in them, too."""
    if not isinstance(cell, dict) or path in cell:
        return cell.get(path) if isinstance(cell, dict) else None
    parts = path.split(".")
    for length in range(1, len(parts)):
        value = _inside(cell.get(".".join(parts[:length])), ".".join(parts[length:]))
        if value is not None:
            return value
    return None


def _tidy_names(frame: pd.DataFrame) -> pd.DataFrame:
    """What nobody sees is no part of a column's name, unless it alone tells it from another."""
    names = [str(name) for name in frame.columns]
    tidied = [tidy(name) for name in names]
    return frame.set_axis(tidied, axis=1) if tidied != names and len({*tidied}) == len(tidied) else frame


def _plain_frames(stream: IO[bytes], path: Path, how: Reading) -> Iterator[pd.DataFrame]:
    what = kind(path)
    if what == "parquet":
        yield from _parquet(stream, path)
    elif what == "jsonl":
        lines, encoding = readable(stream, path.name, how.encoding or UTF_8)
        yield from _json_lines(lines, path, encoding)
    elif what == "workbook":
        yield from _spreadsheet.read(stream, path, how.sheet, how.header)
    else:
        yield from _delimited.read(stream, path.name, how.dialect(what))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            if path.suffix.lower() != ".gz":
                yield raw
                return
            with gzip.open(raw) as stream:
                # Parquet and workbooks are read from their end; the others stream.
                whole = kind(path) in ("parquet", "workbook")
                yield io.BytesIO(stream.read()) if whole else stream  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip ({error}): bring the file again") from None
    except PermissionError:
        raise DataError(f"{path}: not readable: change its permissions") from None


def _parquet_file(stream: IO[bytes], path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a Parquet file ({reason}): bring the file again") from None


def _parquet(stream: IO[bytes], path: Path) -> Iterator[pd.DataFrame]:
    file = _parquet_file(stream, path)
    start = 0
    for batch in file.iter_batches(batch_size=ROWS):
        yield _with_place(_plain(batch).to_pandas(types_mapper=_NULLABLE.get), path.name, start)
        start += len(batch)
    if not start:
        yield _with_place(file.schema_arrow.empty_table().to_pandas(), path.name, 0)


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """Without dictionaries and the pandas index of the writer; bytes of one length (UUIDs) as hexadecimal."""
    table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
    for number, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            decoded = table.column(number).cast(column.type.value_type)
            table = table.set_column(number, column.name, decoded)
        elif pa.types.is_fixed_size_binary(column.type):
            cells = [cell and cell.hex() for cell in table.column(number).to_pylist()]
            table = table.set_column(number, column.name, pa.array(cells, pa.string()))
    return table


def _with_place(frame: pd.DataFrame, file: str, start: int) -> pd.DataFrame:
    frame.columns = frame.columns.astype(str)
    frame[PLACE] = f"{file}:" + pd.Series(range(start + 1, start + 1 + len(frame))).astype("str")
    return frame


def _json_lines(stream: IO[bytes], path: Path, encoding: str) -> Iterator[pd.DataFrame]:
    lines: list[tuple[int, bytes]] = []
    seen = False
    for number, line in enumerate(stream, 1):
        if line.strip():
            lines.append((number, line))
        if len(lines) == JSON_LINES:
            seen = True
            yield _json_frame(lines, path, encoding)
            lines = []
    if lines:
        yield _json_frame(lines, path, encoding)
    elif not seen:
        raise DataError(f"{path}: empty: bring a file with rows")


def _json_frame(lines: list[tuple[int, bytes]], path: Path, encoding: str) -> pd.DataFrame:
    if lines[0][0] == 1 and lines[0][1].lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        raise DataError(f"{path}: a JSON array: write one object a line (JSON lines)")
    rows: list[dict[str, Any]] = []
    for number, line in lines:
        place = f"{path.name}:{number}"
        try:
            row = _object(_delimited.unmarked(line), encoding)  # files one behind the other have several
        except _Twice:
            row = {REASON: _delimited.FIELD_TWICE}
        except UnicodeDecodeError:
            row = {REASON: _delimited.not_of(encoding)}
        except (ValueError, RecursionError):
            row = {REASON: "not_json"}
        if REASON in row:
            row[RAW] = line.decode(encoding, "backslashreplace").strip()[: _delimited.RAW_CHARACTERS]
        rows.append({**row, PLACE: place})
    if lines[0][0] == 1 and all(row.get(REASON) == "not_json" for row in rows):
        raise DataError(
            f"{path}: no line is a JSON object, the first is {rows[0][RAW][:60]!r}: write one object a line, "
            "without commas between them"
        )
    names = dict.fromkeys(name for row in rows for name in row)
    # Objects, not what pandas infers: 123 and "0123" may meet in one column, and long integers stay exact.
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


class _Twice(ValueError):
    """An object names one field twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises _Twice where a name has two values: whichever were taken might be the wrong one."""
    row = dict(pairs)
    if len(row) < len(pairs) and any(row[name] != value for name, value in pairs):
        raise _Twice
    return row


def _object(line: bytes, encoding: str) -> dict[str, Any]:
    text = line.decode(encoding)
    row = json.loads(text, object_pairs_hook=_once)
    if re.search(r"\\u[dD][89abAB]", text):  # half a character of UTF-16 cannot be stored
        row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    if not isinstance(row, dict):
        raise ValueError("not an object")
    return row
