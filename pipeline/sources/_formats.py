"""Files of one table, opened by their extension, in chunks: CSV, TSV, JSON lines, Parquet; also .gz."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob, has_magic
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, DataError
from pipeline.sources import PLACE, RAW, REASON, _delimited

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
}
DIALECTS = {"csv": _delimited.Dialect(), "tsv": _delimited.Dialect("\t", literal_quotes=True)}
# int64 of Arrow with empty cells would become float64 and lose digits of long ids.
_NULLABLE = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


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
    """csv, tsv, jsonl or parquet. Raises ConfigError for another extension."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    found = KINDS.get(suffixes[-1]) if suffixes else None
    if suffixes and suffixes[-1] in (".xlsx", ".xls", ".ods"):
        raise ConfigError(f"{path}: a spreadsheet: save its sheet as CSV in UTF-8 and name that file")
    if found is None:
        raise ConfigError(f"{path}: unknown kind of file: rename it to end in {', '.join(KINDS)} (also .gz)")
    return found


def frames(path: Path) -> Iterator[pd.DataFrame]:
    """Chunks with the file's own column names and `_place`; at least one, perhaps without rows."""
    with _opened(path) as stream:
        what = kind(path)
        if what == "parquet":
            yield from _parquet(stream, path)
        elif what == "jsonl":
            yield from _json_lines(stream, path)
        else:
            yield from _delimited.read(stream, path.name, DIALECTS[what])


def columns(path: Path) -> list[str]:
    """The file's column names; of JSON lines those of the first chunk."""
    if kind(path) == "parquet":
        with _opened(path) as stream:
            return list(_parquet_file(stream, path).schema_arrow.names)
    first = next(frames(path))
    return [name for name in first.columns if name not in (PLACE, REASON, RAW)]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            if path.suffix.lower() != ".gz":
                yield raw
                return
            with gzip.open(raw) as stream:
                # Parquet is read from its end; the others stream.
                yield io.BytesIO(stream.read()) if kind(path) == "parquet" else stream  # type: ignore[misc]
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
    """Without dictionaries and the pandas index of the writer."""
    table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
    for number, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            decoded = table.column(number).cast(column.type.value_type)
            table = table.set_column(number, column.name, decoded)
    return table


def _with_place(frame: pd.DataFrame, file: str, start: int) -> pd.DataFrame:
    frame.columns = frame.columns.astype(str)
    frame[PLACE] = f"{file}:" + pd.Series(range(start + 1, start + 1 + len(frame))).astype("str")
    return frame


def _json_lines(stream: IO[bytes], path: Path) -> Iterator[pd.DataFrame]:
    lines: list[tuple[int, bytes]] = []
    seen = False
    for number, line in enumerate(stream, 1):
        if line.strip():
            lines.append((number, line))
        if len(lines) == JSON_LINES:
            seen = True
            yield _json_frame(lines, path)
            lines = []
    if lines:
        yield _json_frame(lines, path)
    elif not seen:
        raise DataError(f"{path}: empty: bring a file with rows")


def _json_frame(lines: list[tuple[int, bytes]], path: Path) -> pd.DataFrame:
    if lines[0][0] == 1 and lines[0][1].lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        raise DataError(f"{path}: a JSON array: write one object a line (JSON lines)")
    rows: list[dict[str, Any]] = []
    for number, line in lines:
        place = f"{path.name}:{number}"
        try:
            row = _object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except UnicodeDecodeError:
            row = {REASON: "not_utf8"}
        except (ValueError, RecursionError):
            row = {REASON: "not_json"}
        if REASON in row:
            row[RAW] = line.decode("utf-8", "backslashreplace").strip()[: _delimited.RAW_CHARACTERS]
        rows.append({**row, PLACE: place})
    names = dict.fromkeys(name for row in rows for name in row)
    # Objects, not what pandas infers: 123 and "0123" may meet in one column, and long integers stay exact.
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})


def _object(line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8")
    row = json.loads(text)
    if re.search(r"\\u[dD][89abAB]", text):  # half a character of UTF-16 cannot be stored
        row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    if not isinstance(row, dict):
        raise ValueError("not an object")
    return row
