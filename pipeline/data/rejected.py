"""rejected.parquet: every row that was not kept, with its reason, place and cells as they came."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data import hints, tables
from pipeline.data.ids import changed
from pipeline.data.values import as_text
from pipeline.errors import DataError
from pipeline.sources import PLACE, RAW

AFTER_AS_OF = "after_as_of"
COLUMNS = ["table", "reason", "place", *tables.INTERACTIONS, "raw"]
_SCHEMA = pa.schema([(name, pa.large_string()) for name in COLUMNS])
_CELL = 60  # characters of a cell in an example
_CELLS = 100  # looked at for advice
_BLAMED = {
    "unreadable_timestamp": tables.TIME,
    "implausible_timestamp": tables.TIME,
    "no_timestamp": tables.TIME,
    "value_not_a_number": tables.VALUE,
    "user_id_is_a_list_or_object": tables.USER,
    "item_id_is_a_list_or_object": tables.ITEM,
}


@dataclass
class Rejected:
    """Grows row by row; keeps counts and the first example of each reason. Made by `rejected_file`."""

    writer: pq.ParquetWriter
    read: dict[str, int] = field(default_factory=dict)  # table -> rows seen
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # table -> reason -> rows
    examples: dict[tuple[str, str], str] = field(default_factory=dict)  # (table, reason) -> the first one
    cells: dict[str, list[str]] = field(default_factory=dict)  # reason -> the first cells that it blames
    tidied: dict[str, int] = field(
        default_factory=dict
    )  # table -> ids and events that held unseen characters

    def add(self, table: str, frame: pd.DataFrame, reasons: pd.Series) -> None:
        """`reasons` (one a row of the source's `frame`): why it is not kept, missing if it is."""
        self.read[table] = self.read.get(table, 0) + len(frame)
        for name in (tables.USER, tables.ITEM, tables.EVENT):
            if name in frame and (cells := changed(frame[name])):
                self.tidied[table] = self.tidied.get(table, 0) + cells
        out = reasons.notna()
        if not out.any():
            return
        rows = self._cells(frame[out], reasons[out].astype("str")).assign(table=table)
        counts = self.counts.setdefault(table, {})
        for reason, number in rows["reason"].value_counts().items():
            counts[reason] = counts.get(reason, 0) + int(number)
            if (table, reason) not in self.examples:
                alike = rows[rows["reason"] == reason]
                self.examples[table, reason] = _example(alike.iloc[0])
                if reason in _BLAMED:
                    self.cells[reason] = alike[_BLAMED[reason]].head(_CELLS).tolist()
        self.writer.write_table(pa.Table.from_pandas(rows[COLUMNS], _SCHEMA, preserve_index=False))

    def bad(self, table: str) -> int:
        """Rows rejected; those after as_of do not count as bad."""
        return sum(number for reason, number in self.counts.get(table, {}).items() if reason != AFTER_AS_OF)

    def later(self, table: str) -> int:
        return self.counts.get(table, {}).get(AFTER_AS_OF, 0)

    def enforce(self, table: str, share: float) -> None:
        """Raises DataError if more than `share` of the table's rows up to as_of are bad."""
        bad, asked = self.bad(table), self.read.get(table, 0) - self.later(table)
        if bad <= share * asked:
            return
        raise DataError(
            f"{table}: {bad:,} of {asked:,} rows are bad ({bad / asked:.1%}; collect.max_rejected_share is "
            f"{share:g}): {self.faults(table, spare=bad <= asked / 2)}"
        )

    def faults(self, table: str, spare: bool = False) -> str:
        """What is wrong with most bad rows, an example, and what mends it; there is one at least.

        `spare`: the table could do without them. Not where they show that the others were misread.
        """
        reasons = {name: number for name, number in self.counts[table].items() if name != AFTER_AS_OF}
        top = sorted(reasons, key=lambda name: (-reasons[name], name))[:3]
        listed = ", ".join(f"{name.replace('_', ' ')} {reasons[name]:,}" for name in top)
        partly = self.read[table] > sum(self.counts[table].values())
        remedy = (
            _remedy(top[0], self.cells.get(top[0], []), self.examples[table, top[0]], partly)
            or "correct the file or collect.files.columns"
        )
        if spare and not hints.ALSO_OTHERS.search(remedy):
            remedy += ", or raise the limit"
        return f"{listed}; for example {self.examples[table, top[0]]}; {remedy}"

    @staticmethod
    def _cells(frame: pd.DataFrame, reasons: pd.Series) -> pd.DataFrame:
        empty = pd.Series(None, frame.index, dtype="str")
        cells = {name: as_text(frame[name]) if name in frame else empty for name in tables.INTERACTIONS}
        place, raw = (frame.get(name, empty) for name in (PLACE, RAW))
        return pd.DataFrame({"reason": reasons, "place": place, **cells, "raw": raw})


@contextmanager
def rejected_file(path: Path) -> Iterator[Rejected]:
    """Open for writing; complete when the block ends."""
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd", version="2.6") as writer:
        yield Rejected(writer)


def advice(path: Path) -> dict[str, str]:
    """table -> what mends most of its bad rows, of a rejected.parquet beside rows that were kept.

    Tables without advice are absent.
    """
    rows = tables.read_parquet(path)
    rows = rows[rows["reason"] != AFTER_AS_OF]
    result = {}
    for table, bad in rows.groupby("table"):
        top = sorted(bad["reason"].value_counts().items(), key=lambda pair: (-pair[1], pair[0]))[0][0]
        cells = bad.loc[bad["reason"] == top, _BLAMED.get(top, "raw")].head(_CELLS).tolist()
        place = str(bad.loc[bad["reason"] == top, "place"].iloc[0])
        if text := _remedy(top, cells, place, partly=True):
            result[str(table)] = text
    return result


def _remedy(reason: str, cells: list[str], example: str, partly: bool) -> str | None:
    """`example`: a row's place first. `partly`: other rows of the table could be read."""
    blamed = reason in _BLAMED and not any(isinstance(cell, str) for cell in cells)
    empty = blamed or reason in ("no_user_id", "no_item_id")
    if empty and re.match(r"[^(]*\.xls[xm](?:\.gz)?:", example, re.IGNORECASE):
        return (
            "fill these cells: in a workbook formulas that were never computed, and all but the first of "
            "merged cells, are empty"
        )
    return hints.of(reason, cells, _BLAMED.get(reason, "X"), partly)


def _example(row: pd.Series) -> str:
    """ "ratings.csv:17 (user_id='7', timestamp='soon')" or the text of a row that could not be read."""
    place = f"{row['place']} " if pd.notna(row["place"]) else ""
    if pd.notna(row["raw"]):
        return f"{place}({row['raw'][:_CELL]!r})"
    cells = [f"{name}={row[name][:_CELL]!r}" for name in tables.INTERACTIONS if pd.notna(row[name])]
    return f"{place}({', '.join(cells) or 'all cells empty'})"
