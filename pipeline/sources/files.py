"""The source `files`: CSV, TSV, JSON lines, Parquet or workbooks, also .gz, a file or a glob for each table.

In: collect.files. Without an items file (null, or the interactions file itself) title, description,
categories, year, available_from and available_until of the interactions describe the items; `text` of an
interaction is a review or query and stays with it. Columns that nothing maps are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.values import as_text, as_typed
from pipeline.errors import ConfigError
from pipeline.file_settings import Files, Table
from pipeline.params import Collect
from pipeline.sources import PLACE, RAW, REASON, Tables, digest_of
from pipeline.sources._columns import Plan, inner_names, plans, time_formats
from pipeline.sources._formats import TEXTS, Reading, columns, frames, kind, matching, partition_of, reading
from pipeline.sources._spreadsheet import usual_days


def read(settings: Collect) -> Tables:
    files, paths = settings.files, _paths(settings.files)
    how = {table: reading(files, table, inner_names(files.columns)) for table in paths}
    named: dict[str, dict[str, list[str]]] = {
        table: {str(path): columns(path, how[table]) for path in paths[table]} for table in paths
    }
    chosen = plans(files.columns, named, items_inside="items" not in paths)
    further = {
        table: _table(paths[table], chosen[table], how[table], contract, files.decimal)
        for table, contract in (
            ("items", tables.ITEMS),
            ("users", tables.USERS),
            ("relations", tables.RELATIONS),
        )
        if table in paths
    }
    rows = _interactions(paths["interactions"], chosen["interactions"], how["interactions"])
    return Tables(rows, **further, times=time_formats(files.columns), decimal=files.decimal)


def fingerprint(settings: Collect) -> str:
    paths = [path for files in _paths(settings.files).values() for path in files]
    names = [f"{name}={cell}" for path in paths for name, cell in partition_of(path).items()]
    digest = digest_of(paths)
    return hashlib.sha256("\0".join([digest, *names]).encode()).hexdigest() if names else digest


def _paths(files: Files) -> dict[Table, list[Path]]:
    """table -> its files; without items where the interactions hold them. Every file's kind is known."""
    if not files.interactions:
        raise ConfigError("collect.files.interactions: null; name a file or glob of interactions")
    result: dict[Table, list[Path]] = {
        "interactions": matching(files.interactions, "collect.files.interactions")
    }
    if files.items:
        items, sheets = matching(files.items, "collect.files.items"), files.sheet
        if items != result["interactions"] or sheets.get("items") != sheets.get("interactions"):
            result["items"] = items
    if files.users:
        result["users"] = matching(files.users, "collect.files.users")
    if files.relations:
        result["relations"] = matching(files.relations, "collect.files.relations")
    for path in (path for paths in result.values() for path in paths):
        kind(path)
    return result


def _interactions(paths: list[Path], chosen: dict[str, Plan], how: Reading) -> Iterator[pd.DataFrame]:
    for path in paths:
        for chunk in _chunks(path, paths, how):
            frame = usual_days(chosen[str(path)].apply(chunk), chunk.attrs)
            # A type guessed from a chunk could change with the next one.
            if kind(path) != "parquet":
                further = _further(frame, tables.INTERACTIONS)
            else:
                further = [
                    name for name in _further(frame, tables.INTERACTIONS) if _holds_nested(frame[name])
                ]
            yield frame.assign(**{name: as_text(frame[name]) for name in further})


def _chunks(path: Path, paths: list[Path], how: Reading) -> Iterator[pd.DataFrame]:
    """The file's frames; its rows' places name its folder, too, where another file is called alike."""
    alike = not partition_of(path) and any(other.name == path.name for other in paths if other != path)
    for frame in frames(path, how):
        yield frame.assign(**{PLACE: f"{path.parent.name}/" + frame[PLACE]}) if alike else frame


def _table(
    paths: list[Path], chosen: dict[str, Plan], how: Reading, contract: list[str], decimal: str | None
) -> pd.DataFrame:
    parts = []
    for path in paths:
        plan = chosen[str(path)]
        chunks = [usual_days(plan.apply(chunk), chunk.attrs) for chunk in _chunks(path, paths, how)]
        part = pd.concat(chunks, ignore_index=True)
        for name in _further(part, contract):
            if kind(path) in TEXTS or name in partition_of(path):
                part[name] = as_typed(part[name], decimal)
            elif _holds_nested(part[name]):
                part[name] = as_text(part[name])
        parts.append(part)
    whole = pd.concat(parts, ignore_index=True)
    mixed = [name for name in _further(whole, contract) if _holds_lists_and_more(whole[name])]
    return whole.assign(**{name: as_text(whole[name]) for name in mixed})


def _further(frame: pd.DataFrame, contract: list[str]) -> pd.Index:
    return frame.columns.difference([*contract, PLACE, REASON, RAW], sort=False)


def _holds_lists_and_more(column: pd.Series) -> bool:
    """As files of one table may differ."""
    filled = column.dropna() if column.dtype == object else column[:0]
    return filled.map(lambda cell: isinstance(cell, list | np.ndarray)).nunique() > 1


def _holds_nested(column: pd.Series) -> bool:
    return bool(column.dtype == object and column.map(_is_nested).any())


def _is_nested(cell: Any) -> bool:
    """Objects and lists of them: their fields differ from row to row, so they are kept as JSON text."""
    if isinstance(cell, list | np.ndarray):
        return any(isinstance(part, dict | list | tuple | np.ndarray) for part in cell)
    return isinstance(cell, dict)
