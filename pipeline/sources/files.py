"""The source `files`: CSV, TSV, JSON lines or Parquet, also .gz, one file or a glob for each table.

In: collect.files. Without an items file (null, or the interactions file itself) title, description,
categories, year, available_from and available_until of the interactions describe the items; `text` of an
interaction is a review or query and stays with it. Columns that nothing maps are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables as t
from pipeline.data.values import as_text, as_typed
from pipeline.errors import ConfigError
from pipeline.params import Collect, Files
from pipeline.sources import PLACE, RAW, REASON, Tables, digest_of
from pipeline.sources._columns import Plan, plans, time_formats
from pipeline.sources._formats import columns, frames, kind, matching


def read(settings: Collect) -> Tables:
    paths = _paths(settings.files)
    found = {table: {str(path): columns(path) for path in files} for table, files in paths.items()}
    chosen = plans(settings.files.columns, found, items_inside="items" not in paths)
    return Tables(
        interactions=_interactions(paths["interactions"], chosen["interactions"]),
        items=_table(paths["items"], chosen["items"], t.ITEMS) if "items" in paths else None,
        users=_table(paths["users"], chosen["users"], t.USERS) if "users" in paths else None,
        times=time_formats(settings.files.columns),
    )


def fingerprint(settings: Collect) -> str:
    return digest_of(path for files in _paths(settings.files).values() for path in files)


def _paths(files: Files) -> dict[str, list[Path]]:
    """table -> its files; without items where the interactions hold them. Every file's kind is known."""
    if not files.interactions:
        raise ConfigError("collect.files.interactions: null; name a file or glob of interactions")
    result = {"interactions": matching(files.interactions, "collect.files.interactions")}
    if files.items:
        items = matching(files.items, "collect.files.items")
        if items != result["interactions"]:
            result["items"] = items
    if files.users:
        result["users"] = matching(files.users, "collect.files.users")
    for path in (path for paths in result.values() for path in paths):
        kind(path)
    return result


def _interactions(paths: list[Path], chosen: dict[str, Plan]) -> Iterator[pd.DataFrame]:
    for path in paths:
        for chunk in frames(path):
            frame = chosen[str(path)].apply(chunk)
            yield _texts(frame, t.INTERACTIONS) if kind(path) in ("csv", "tsv", "jsonl") else frame


def _table(paths: list[Path], chosen: dict[str, Plan], contract: list[str]) -> pd.DataFrame:
    parts = []
    for path in paths:
        part = pd.concat([chosen[str(path)].apply(chunk) for chunk in frames(path)], ignore_index=True)
        for name in part.columns.difference([*contract, PLACE, REASON, RAW], sort=False):
            if kind(path) in ("csv", "tsv"):
                part[name] = as_typed(part[name])
            elif part[name].dtype == object and part[name].map(_is_nested).any():
                part[name] = as_text(part[name])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _is_nested(cell: Any) -> bool:
    """Objects and lists of them: their fields differ from row to row, so they are kept as JSON text."""
    if isinstance(cell, list | np.ndarray):
        return any(isinstance(part, dict | list | np.ndarray) for part in cell)
    return isinstance(cell, dict)


def _texts(frame: pd.DataFrame, contract: list[str]) -> pd.DataFrame:
    """Further columns of interactions as text: a type guessed from a chunk could change with the next one."""
    for name in frame.columns.difference([*contract, PLACE, REASON, RAW], sort=False):
        frame[name] = as_text(frame[name])
    return frame
