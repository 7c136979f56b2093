"""Interactions sorted into monthly files whose bytes depend on the month's rows alone.

Rows are in order of time; ties in the order of a fixed-salt hash of user, item and event, because the order
of a file often is the order of its item ids and would leak them. Same user, item, timestamp and event is a
duplicate: the first row read stays. Rows beyond a budget of memory wait on disk, already split by month.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data import tables
from pipeline.data.values import as_text

SALT = "evergreen"
BUDGET = 256 << 20  # bytes of rows kept in memory before they go to disk
_HASHED_AT_ONCE = 100_000


@dataclass
class Written:
    """What the files hold. Times are numpy microseconds, None without rows."""

    rows: int = 0
    duplicates: int = 0
    first: np.datetime64 | None = None
    last: np.datetime64 | None = None
    files: list[Path] = field(default_factory=list)


class Partitions:
    """Takes interactions in any order; `write` makes the files. `spill` is a folder of its own."""

    def __init__(self, spill: Path, budget: int = BUDGET) -> None:
        self._spill, self._budget = spill, budget
        self._waiting: list[pa.Table] = []
        self._on_disk = 0
        self._types: dict[str, pa.DataType] = {}  # of all columns seen, in order of appearance

    def add(self, frame: pd.DataFrame) -> None:
        if not len(frame):
            return
        table = tables.to_arrow(frame).replace_schema_metadata(None)
        for column in table.schema:
            known = self._types.get(column.name, column.type)
            self._types[column.name] = _common(known, column.type)
        self._waiting.append(table)
        if sum(table.nbytes for table in self._waiting) > self._budget:
            self._flush()

    def write(self, folder: Path) -> Written:
        """`folder`/month=YYYY-MM/part-0.parquet of everything added."""
        result = Written()
        for month, table in self._months():
            kept = _sorted(table)
            path = folder / f"month={month}" / "part-0.parquet"
            tables.write_parquet(kept, path)
            times = kept.column(tables.TIME).to_numpy()
            result.rows += len(kept)
            result.duplicates += len(table) - len(kept)
            result.first = times[0] if result.first is None else result.first
            result.last = times[-1]
            result.files.append(path)
        return result

    def _flush(self) -> None:
        for month, table in _split(self._joined(self._waiting)):
            path = self._spill / str(month) / f"{self._on_disk:06d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
        self._on_disk += 1
        self._waiting = []

    def _months(self) -> Iterator[tuple[np.datetime64, pa.Table]]:
        if not self._on_disk:
            waiting, self._waiting = self._waiting, []
            yield from _split(self._joined(waiting))
            return
        self._flush()
        for folder in sorted(self._spill.iterdir(), key=lambda folder: np.datetime64(folder.name)):
            pieces = [pq.ParquetFile(path).read() for path in sorted(folder.iterdir())]
            yield np.datetime64(folder.name), self._joined(pieces)

    def _joined(self, pieces: list[pa.Table]) -> pa.Table:
        """One table with all columns seen so far in their common types."""
        schema = pa.schema(list(self._types.items()))
        return (
            pa.concat_tables([_fitted(piece, schema) for piece in pieces]) if pieces else schema.empty_table()
        )


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds both; text if numbers meet anything else."""
    if one == other:
        return one
    try:
        schemas = [pa.schema([("x", one)]), pa.schema([("x", other)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowTypeError:
        return pa.large_string()


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for wanted in schema:
        if wanted.name not in table.column_names:
            columns.append(pa.nulls(len(table), wanted.type))
            continue
        column = table.column(wanted.name)
        try:
            columns.append(column.cast(wanted.type))
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # a list as text
            cells = as_text(pd.Series(column.to_pylist(), dtype=object))
            columns.append(pa.array(cells, wanted.type, from_pandas=True))
    return pa.table(columns, schema=schema)


def _split(table: pa.Table) -> Iterator[tuple[np.datetime64, pa.Table]]:
    """(month, its rows in their order), in order of time."""
    if not len(table):
        return
    months = table.column(tables.TIME).to_numpy().astype("datetime64[M]")
    order = np.argsort(months, kind="stable")
    months = months[order]
    starts = np.flatnonzero(np.r_[True, months[1:] != months[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(months)], strict=True):
        yield months[start], table.take(order[start:end])


def _sorted(table: pa.Table) -> pa.Table:
    """In order of time and hash, without duplicates."""
    times = table.column(tables.TIME).to_numpy()
    hashes = _tie_hashes(table, times)
    order = np.lexsort((hashes, times))
    times, hashes = times[order], hashes[order]
    alike = np.flatnonzero((times[1:] == times[:-1]) & (hashes[1:] == hashes[:-1])) + 1
    if len(alike):
        # Same time and hash: compare the rows themselves. The sort is stable, so the earlier was read first.
        keys = table.select([tables.USER, tables.ITEM, tables.EVENT])
        later, earlier = keys.take(order[alike]), keys.take(order[alike - 1])
        same = np.ones(len(alike), dtype=bool)
        for name in keys.column_names:
            same &= pc.equal(later.column(name), earlier.column(name)).to_numpy()
        order = np.delete(order, alike[same])
    return table.take(order).combine_chunks()


def _tie_hashes(table: pa.Table, times: np.ndarray) -> np.ndarray:
    """(rows,) uint64: of rows that share their time with another, the start of an md5; 0 elsewhere."""
    hashes = np.zeros(len(times), dtype=np.uint64)
    tied = np.flatnonzero(pd.Series(times).duplicated(keep=False))
    for start in range(0, len(tied), _HASHED_AT_ONCE):
        rows = tied[start : start + _HASHED_AT_ONCE]
        columns = [
            table.column(name).take(rows).to_pylist() for name in (tables.USER, tables.ITEM, tables.EVENT)
        ]
        digests = b"".join(
            hashlib.md5("\x1f".join((SALT, *key)).encode(), usedforsecurity=False).digest()[:8]
            for key in zip(*columns, strict=True)
        )
        hashes[rows] = np.frombuffer(digests, dtype=">u8")
    return hashes
