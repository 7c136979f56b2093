"""The sample of interactions that a model keeps of its own time, to compare later ones with.

In: all rows that the model may know (the interaction columns, `positive` and any others), its fit_end.
Out: `interactions.parquet`: the rows of the newest windows up to fit_end, with `window` (0 is the oldest),
`new_user` and `new_item`; above `reference_rows` rows, whole users drawn by a fixed-salt hash.
`summary.json`: counts, and rows and users a day (of 24 hours, counted back from fit_end) for the volume,
which a sample of users cannot tell.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.documents.model import ReferenceSummary
from pipeline.drift import windows
from pipeline.errors import ArtifactError

FOLDER = "reference"  # in a model folder
ROWS, SUMMARY = "interactions.parquet", "summary.json"
FORMAT: Final = 2
RULE = ("window_days", "min_rows", "min_users", "reference_windows", "reference_rows")
LEAST_DAYS, MOST_DAYS = 180, 1000  # of the daily counts
FIRST_DAYS = 28  # of all
_SALT = "evergreen.drift"


class Settings(windows.Rule, Protocol):
    """The settings of detect_drift, or anything with these and what a window must hold."""

    @property
    def reference_windows(self) -> int: ...
    @property
    def reference_rows(self) -> int: ...


@dataclass(frozen=True)
class Reference:
    """Sampled rows, and what is known of all of them; of a table that is no sample, nothing further."""

    rows: pd.DataFrame
    summary: ReferenceSummary | None

    @property
    def fit_end(self) -> pd.Timestamp:
        if self.summary is None:
            raise ValueError("a table given by hand has no fit_end")
        return pd.Timestamp(self.summary.fit_end)

    @property
    def rows_fitted(self) -> int | None:
        return self.summary.rows_fitted if self.summary else None

    @property
    def daily(self) -> windows.Daily | None:
        """What happens a day up to fit_end; None if unknown."""
        if self.summary is None:
            return None
        counts = np.array(self.summary.daily, dtype=float).reshape(-1, len(windows.COUNTED))
        return windows.Daily(counts, np.array(self.summary.daily_variation, dtype=float))


def make(rows: pd.DataFrame, fit_end: datetime | str, settings: Settings) -> Reference:
    """From all rows: later ones than fit_end are left out. Without one closed window it has no row."""
    end = _moment(fit_end)
    rows = rows[rows[tables.TIME] <= end]
    if any(name not in rows for name in windows.SINCE):
        rows = windows.with_since(rows)
    newest = windows.newest(rows, settings, settings.reference_windows)
    parts = [window.rows.assign(window=np.int8(place)) for place, window in enumerate(newest)]
    chosen = pd.concat(parts, ignore_index=True) if parts else rows.head(0)
    sample = sampled(chosen, settings.reference_rows)
    since = newest[0].start if newest else None
    daily = _daily(rows, end, since)
    summary = ReferenceSummary(
        format=FORMAT,
        fit_end=end,
        rows_fitted=len(rows),
        users_fitted=rows[tables.USER].nunique(),
        items_fitted=rows[tables.ITEM].nunique(),
        rows=len(chosen),
        users=chosen[tables.USER].nunique(),
        windows=[window.describe() for window in newest],
        rows_kept=len(sample),
        rule={name: getattr(settings, name) for name in RULE},
        daily=daily.counts.tolist(),
        daily_variation=daily.variation.tolist(),
    )
    return Reference(sample.drop(columns=list(windows.SINCE), errors="ignore"), summary)


def write(folder: Path, rows: pd.DataFrame, fit_end: datetime | str, settings: Settings) -> Reference:
    """`make`, into `folder` (made if absent): the same rows give the same bytes."""
    reference = make(rows, fit_end, settings)
    assert reference.summary is not None
    tables.write_parquet(reference.rows, folder / ROWS)
    reference.summary.write(folder / SUMMARY)
    return reference


def read(folder: Path) -> Reference:
    """What `write` wrote. Raises ArtifactError if it is missing or damaged."""
    summary = ReferenceSummary.read(folder / SUMMARY)
    try:
        rows = pd.read_parquet(folder / ROWS)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / ROWS}: missing or damaged ({error}): {summary.remedy}") from None
    if len(rows) != summary.rows_kept:
        raise ArtifactError(
            f"{folder / ROWS}: damaged ({len(rows)} rows instead of {summary.rows_kept}): {summary.remedy}"
        )
    return Reference(rows, summary)


def sampled(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """All rows of users in the order of a fixed-salt hash, as many whole users as stay within `most` rows.

    The user who would exceed it is left out, and all after it; a first user of more rows stays alone.
    """
    if len(rows) <= most:
        return rows.reset_index(drop=True)
    code, users = pd.factorize(rows[tables.USER])
    order = np.argsort(user_hash(users), kind="stable")
    total = np.cumsum(np.bincount(code, minlength=len(users))[order])
    kept = order[: max(1, int(np.searchsorted(total, most, side="right")))]
    return rows[np.isin(code, kept)].reset_index(drop=True)


def user_hash(users: Any) -> np.ndarray:
    """(users,) uint64 of the fixed salt and each id: neither seed nor order of the data enters."""
    digests = [hashlib.md5(f"{_SALT}|{user}".encode()).digest()[:8] for user in users]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _daily(rows: pd.DataFrame, end: pd.Timestamp, since: pd.Timestamp | None) -> windows.Daily:
    """Of each whole day back from `end`: as far as the windows reach, at least 180 days if there are.

    In the first days of all nobody has been met before: beyond the windows' reach they are left out.
    """
    if not len(rows):
        return windows.Daily.of(np.zeros(0, np.int64), rows, 0)
    time, last = windows.microseconds(rows[tables.TIME]), end.value // 1000
    age = (last - time) // windows.MICROSECONDS_A_DAY
    whole = int((last - time.min()) // windows.MICROSECONDS_A_DAY)
    reach = 0 if since is None else -(-(last - since.value // 1000) // windows.MICROSECONDS_A_DAY)
    days = min(max(whole - FIRST_DAYS, min(whole, int(reach))), max(LEAST_DAYS, int(reach)), MOST_DAYS)
    return windows.Daily.of(days - 1 - age, rows, days)


def _moment(moment: datetime | str) -> pd.Timestamp:
    stamp = pd.Timestamp(moment)
    return (stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")).as_unit("us")
