"""Tables of data/raw prepared for a model, kept from one start to the next.

What preparing makes of the same bytes in the same way is the same, so it is kept in .evergreen/prepared under
a hash of both; data that change, a model that was prepared otherwise, or an item that was put have another
hash and are prepared anew. Only the newest is kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.forgotten import Forgotten
from pipeline.data.histories import Log
from pipeline.errors import DataError
from pipeline.files import NOT_WHOLE, temporary_beside
from pipeline.models.artifacts import files_hash
from pipeline.models.preparation import Preparation
from pipeline.params import Positive
from pipeline.serve.changes import with_changes
from pipeline.serve.events import Change

log = logging.getLogger(__name__)
FORMAT = 1  # another one for other files, or for another way to prepare
FOLDER = Path(".evergreen/prepared")
KEY = [tables.USER, tables.ITEM, tables.TIME, tables.EVENT]  # rows that agree in them are one


@dataclass(frozen=True)
class Prepared:
    """The catalogue and log of some rows."""

    items: pd.DataFrame  # with item_text
    log: Log
    user_ids: np.ndarray  # (users,) object, sorted
    rows: np.ndarray  # (rows,) uint64 ascending: `row_hash` of each
    reactions: dict[str, dict[str, Any] | None]  # events of a like and a dislike

    @classmethod
    def of(cls, rows: pd.DataFrame, items: pd.DataFrame, how: Preparation) -> Prepared:
        table, made, users = how.apply(rows, items)
        return cls(table, made, users, np.sort(row_hash(rows)), reactions(rows, how.positive))


def row_hash(rows: pd.DataFrame) -> np.ndarray:
    """(rows,) uint64 of what makes a row different from others."""
    return pd.util.hash_pandas_object(rows[KEY], index=False).to_numpy()


def prepared(
    root: Path,
    how: Preparation,
    changes: Sequence[Change],
    forgotten: Forgotten | None = None,
    folder: Path = FOLDER,
    texts: bool = False,
) -> Prepared:
    """`folder`: where it is kept; `texts`: with those of the rows. Raises DataError without data."""
    raw, final = root / "data/raw", root / folder
    if not (raw / "interactions").is_dir():
        raise DataError(f"{raw / 'interactions'}: no such table: run `dvc repro collect`, or `dvc pull`")
    marks = sorted(forgotten.marks) if forgotten else []
    final = final / _key(raw, how, changes, marks, texts)
    if (found := _read(final)) is not None:
        return found
    made = Prepared.of(*raw_tables(raw, changes, forgotten, texts), how)
    try:
        _write(made, final)
    except OSError as error:  # a service may run where nothing can be written
        log.warning("%s: not kept for the next start: %s", folder, error)
    return made


def raw_tables(
    raw: Path, changes: Sequence[Change], forgotten: Forgotten | None = None, texts: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(interactions without those of forgotten people, items as they were put and withdrawn)."""
    rows = tables.read_parquet(
        raw / "interactions", columns=[*KEY, tables.VALUE, *([tables.TEXT] if texts else [])]
    )
    items = tables.read_parquet(raw / "items.parquet")
    if forgotten is not None:
        rows = rows[~forgotten.among(rows[tables.USER])]
    return rows, with_changes(items, changes)


def reactions(rows: pd.DataFrame, positive: Positive) -> dict[str, dict[str, Any] | None]:
    """Events by which a person likes and dislikes, as the rows have them; None where these have no no."""
    mode = rows[tables.EVENT].mode()
    event = (positive.events or [str(mode.iloc[0]) if len(mode) else "like"])[0]
    values = rows.loc[rows[tables.EVENT] == event, tables.VALUE].dropna()
    if positive.min_value is not None and len(values) and values.min() < positive.min_value:
        best, worst = float(values.max()), float(values.min())
        return {"like": {"event": event, "value": best}, "dislike": {"event": event, "value": worst}}
    return {"like": {"event": event}, "dislike": {"event": "dislike"} if positive.events else None}


def _key(raw: Path, how: Preparation, changes: Sequence[Change], marks: Sequence[str], texts: bool) -> str:
    files = {str(path.relative_to(raw)): path for path in raw.rglob("*.parquet")}
    settings = asdict(how) | {
        "positive": how.positive.model_dump(mode="json"),
        "train_end": str(how.train_end),
        "texts": texts,
    }
    told = json.dumps([FORMAT, files_hash(files), settings, changes, marks], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _write(made: Prepared, final: Path) -> None:
    folder = temporary_beside(final)
    tables.write_parquet(made.items, folder / "items.parquet")
    pd.DataFrame({"user_id": made.user_ids.astype(str)}).to_parquet(folder / "users.parquet")
    arrays = {
        name: each for field in fields(Log) if (each := getattr(made.log, name := field.name)) is not None
    }
    if (text := arrays.pop("text", None)) is not None:  # numpy would pickle it
        pd.DataFrame({tables.TEXT: text.astype(str)}).to_parquet(folder / "texts.parquet")
    np.savez(folder / "log.npz", rows=made.rows, **arrays)
    (folder / "reactions.json").write_text(json.dumps(made.reactions), encoding="utf-8")
    if final.exists():  # another worker was quicker
        shutil.rmtree(folder)
        return
    folder.rename(final)
    for other in final.parent.iterdir():
        if other != final and not other.name.startswith("."):
            shutil.rmtree(other, ignore_errors=True)


def _read(folder: Path) -> Prepared | None:
    """None if it is not there, or not whole."""
    try:
        with np.load(folder / "log.npz") as file:
            arrays = {name: file[name] for name in file.files}
        items = tables.read_parquet(folder / "items.parquet")
        users = pd.read_parquet(folder / "users.parquet")[tables.USER].to_numpy(dtype=object)
        if (file_of_texts := folder / "texts.parquet").exists():
            arrays["text"] = pd.read_parquet(file_of_texts)[tables.TEXT].to_numpy(dtype=object)
        told = json.loads((folder / "reactions.json").read_text(encoding="utf-8"))
    except (*NOT_WHOLE, DataError):
        return None
    rows = arrays.pop("rows")
    made = Log(**(arrays | {"repeats": bool(arrays["repeats"])}))
    return Prepared(items, made, users, rows, told)
