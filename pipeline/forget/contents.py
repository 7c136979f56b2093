"""What of a file's content is of forgotten people, and the file without it.

Tables (Parquet) lose the rows whose `user_id` is theirs, and rejected rows whose text names them; JSON loses
objects of lists whose "user_id" is theirs; pages lose the passages that tell of them. Other files hold
nobody: weights, counts and matrices are about items. DVC's objects have no names: the first bytes tell the
kind.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.data import tables
from pipeline.data.forgotten import Forgotten
from pipeline.data.ids import as_ids

RAW_TEXT = "raw"  # of rejected rows (pipeline/data/rejected.py)
# As pipeline/templates/evaluation.html writes them.
_PASSAGES = (
    re.compile(r'<article class="person">\s*<h3>User <bdi>([^<]*)</bdi></h3>.*?</article>\s*', re.DOTALL),
    re.compile(r"<div><bdi>([^<]*)</bdi>: .*?</div>", re.DOTALL),
)


class Contents:
    """Of `people`; `names`: their ids as far as they have been met, for texts that can only be searched."""

    def __init__(self, people: Forgotten, names: Iterable[str] = ()) -> None:
        self.people, self.names = people, set(names)

    def rows(self, file: IO[bytes]) -> int:
        """How many rows, objects or passages of the file are theirs."""
        begin = file.read(64)
        file.seek(0)
        if begin.startswith(b"PAR1"):
            return self._rows_of_table(file)
        if begin.lstrip()[:1] in (b"{", b"["):
            text = file.read()
            return self._without(_parsed(text))[1] if b'"user_id"' in text else 0
        return self._page(file.read().decode(errors="replace"))[1] if begin.lstrip()[:1] == b"<" else 0

    def clean(self, source: Path, target: Path, hashes: Mapping[str, str]) -> int:
        """Write what is left into `target`, with other `hashes` in JSON; how many were theirs.

        Nothing is written where nothing would change.
        """
        with source.open("rb") as file:
            found = self.rows(file)
            file.seek(0)
            begin = file.read(64)
        if begin.startswith(b"PAR1"):
            if found:
                self._clean_table(source, target)
            return found
        kind = begin.lstrip()[:1]
        if kind not in (b"{", b"[", b"<"):
            return 0
        text = source.read_text(encoding="utf-8", errors="surrogateescape")
        if kind == b"<":
            left = self._page(text)[0]
        else:
            left = text
            if found:
                content = self._without(_parsed(text.encode(errors="surrogateescape")))[0]
                left = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            for before, after in hashes.items():
                left = left.replace(f'"{before}"', f'"{after}"')
        if left != text:
            target.write_text(left, encoding="utf-8", errors="surrogateescape")
        return found

    # Tables -----------------------------------------------------------------------------------------------

    def _rows_of_table(self, file: IO[bytes]) -> int:
        try:
            table = pq.ParquetFile(file)
            columns = [name for name in (tables.USER, RAW_TEXT) if name in table.schema_arrow.names]
            if tables.USER not in columns:
                return 0
            parts = (table.read_row_group(n, columns=columns) for n in range(table.num_row_groups))
            return sum(int(self._theirs(part).sum()) for part in parts)
        except pa.ArrowInvalid:  # begins like a table and is none
            return 0

    def _clean_table(self, source: Path, target: Path) -> None:
        table = pq.ParquetFile(source)
        with pq.ParquetWriter(target, table.schema_arrow, compression="zstd", version="2.6") as writer:
            for number in range(table.num_row_groups):
                part = table.read_row_group(number)
                writer.write_table(part.filter(pa.array(~self._theirs(part))))

    def _theirs(self, part: pa.Table) -> Any:
        """(rows,) bool."""
        users = part.column(tables.USER)
        cells = pc.unique(users)
        ids = pd.Series(cells.to_pandas(), dtype="str")
        if RAW_TEXT in part.column_names:  # cells as they came
            ids = as_ids(ids)
        gone = self.people.among(ids)
        self.names.update(map(str, ids[gone].unique()))
        theirs = pc.is_in(users, value_set=cells.filter(pa.array(gone))).to_numpy(zero_copy_only=False)
        if RAW_TEXT in part.column_names and self.names:
            raw = pd.Series(part.column(RAW_TEXT).to_pandas(), dtype="str")
            named = "|".join(re.escape(name) for name in sorted(self.names))
            theirs = theirs | raw.str.contains(rf"(?<![\w-])(?:{named})(?![\w-])", na=False).to_numpy(bool)
        return theirs

    # JSON and pages ---------------------------------------------------------------------------------------

    def _is_theirs(self, value: Any) -> bool:
        return (
            isinstance(value, dict) and isinstance(value.get("user_id"), str) and self._has(value["user_id"])
        )

    def _has(self, user_id: str) -> bool:
        if self.people.has(user_id):
            self.names.add(user_id)
            return True
        return False

    def _without(self, content: Any) -> tuple[Any, int]:
        """(the content without objects that are theirs, how many these are)."""
        if isinstance(content, dict):
            cleared = {key: self._without(value) for key, value in content.items()}
            return {key: value for key, (value, _) in cleared.items()}, sum(n for _, n in cleared.values())
        if isinstance(content, list):
            kept = [self._without(value) for value in content if not self._is_theirs(value)]
            return [value for value, _ in kept], len(content) - len(kept) + sum(n for _, n in kept)
        return content, 0

    def _page(self, text: str) -> tuple[str, int]:
        found = 0

        def passage(match: re.Match[str]) -> str:
            nonlocal found
            if not self._has(html.unescape(match[1])):
                return match[0]
            found += 1
            return ""

        for pattern in _PASSAGES:
            text = pattern.sub(passage, text)
        return text, found


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
