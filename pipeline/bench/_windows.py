"""Windows of a data set whose test window has few users, and what was found in them as one.

In: data/prepared, or a folder like data/raw. Out: prepared data, the newest last. Rule: of raw data with
fewer than FEWEST_USERS users at the test points WINDOWS data sets are prepared: one of all rows, and before
each one of the rows earlier than its test window, split by the same shares. So test windows follow each other
without a gap up to the newest row, and nothing of a later one is known to an earlier one: an item is there if
a row has it by then, or if it was available (`available_from`); tags later than train never enter a text.
Points keep their window's slices (`cold_items`: never in that window's train) but are told in the newest
window's indices, so that a user of several windows is one user.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.bench._fits import Ranked
from pipeline.bench.gate import load
from pipeline.data import items as catalogue_of
from pipeline.data import tables
from pipeline.data.histories import TEST, Points, Prepared
from pipeline.errors import DataError
from pipeline.evaluation import slices as of_points
from pipeline.models.encoder import TextEncoder
from pipeline.params import Params

FEWEST_USERS, WINDOWS = 100, 5

log = logging.getLogger(__name__)


def load_windows(folder: Path, params: Params) -> list[tuple[Prepared, np.ndarray]]:
    """Prepared data and un-tuned vectors of each window, oldest first: one, or WINDOWS where users are few.

    Fewer if the rows do not make more. Raises DataError if `folder` is neither prepared nor raw data.
    """
    whole, vectors = load(folder)
    few = users(whole) < FEWEST_USERS and not _is_prepared(folder)
    earlier = _before(folder, whole) if few else []
    if vectors is not None and not earlier:
        return [(whole, vectors)]
    # Vectors beside the data may be of another encoder than those still to be made: all of them by one.
    texts, known = _texts(whole), set(_texts(whole))
    texts += {text: None for window in earlier for text in _texts(window) if text not in known}
    encoder = TextEncoder.load(params.finetune.encoder, params.finetune.max_length)
    vectors = encoder.vectors(texts)
    of = dict(zip(texts, vectors, strict=True))
    found = [(window, np.stack([of[text] for text in _texts(window)])) for window in earlier]
    return [*found, (whole, vectors[: len(whole.catalogue)])]


def advice(folder: Path, windows: Sequence[Prepared]) -> list[str]:
    """A sentence if figures rest on few users, and raw data would give more."""
    count = users(windows[-1])
    if count >= FEWEST_USERS or not _is_prepared(folder):
        return []
    return [f"only {count} test users: of raw data (--data data/raw) the last {WINDOWS} windows are pooled"]


def users(prepared: Prepared) -> int:
    return len(np.unique(prepared.test.user))


def points(windows: Sequence[Prepared]) -> Points:
    """The test points of all windows one after the other, in users, items and log of the newest."""
    newest = windows[-1]
    user = [pd.Index(newest.user_ids).get_indexer(pd.Index(w.user_ids))[w.test.user] for w in windows]
    target = [_items(newest, w)[w.test.target] for w in windows]
    time = np.concatenate([w.test.time for w in windows])
    return newest.log.points(np.concatenate(user).astype(np.int32), np.concatenate(target), time)


def lists(windows: Sequence[Prepared], listed: Iterable[np.ndarray]) -> np.ndarray:
    """(points of the window, k) lists of each -> (points, k) in items of the newest; -1 stays -1."""
    pairs = zip(windows, listed, strict=True)
    return np.concatenate([np.r_[_items(windows[-1], w), np.int32(-1)][lists] for w, lists in pairs])


def pooled(windows: Sequence[Prepared], found: list[list[Ranked]]) -> list[Ranked]:
    """The fits of one model in each window, one a seed: as if a single one a seed had ranked all points."""
    if len(found) == 1:
        return found[0]
    return [
        Ranked(
            lists(windows, [one.listed for one in fits]),
            float(np.mean([one.validation for one in fits])),
            {f"window_{number}": one.settings for number, one in enumerate(fits, 1) if one.settings},
            sum(one.tried for one in fits),
            sum(one.seconds for one in fits),
        )
        for fits in zip(*found, strict=True)
    ]


def slices(windows: Sequence[Prepared]) -> dict[str, np.ndarray]:
    """Name -> (points,) mask: what a point was in its own window."""
    each = [of_points.slices(window.test) for window in windows]
    return {name: np.concatenate([masks[name] for masks in each]) for name in each[-1]}


def conditions(windows: Sequence[Prepared]) -> dict[str, Any]:
    """Number of windows, span, users and points of each test window; nothing of a single one."""
    if len(windows) == 1:
        return {}
    return {"windows": len(windows), "test_windows": [_described(window) for window in windows]}


def _described(window: Prepared) -> dict[str, Any]:
    times = window.log.time[window.log.window == TEST]
    first, last = (
        pd.Timestamp(int(time), unit="us", tz="UTC").isoformat() for time in (times.min(), times.max())
    )
    return {"from": first, "to": last, "users": users(window), "points": len(window.test)}


def _is_prepared(folder: Path) -> bool:
    return (folder / "train.parquet").exists()


def _items(newest: Prepared, window: Prepared) -> np.ndarray:
    """(items of the window,) int32 places in the newest one's catalogue."""
    return newest.catalogue.index(window.catalogue.ids)


def _texts(prepared: Prepared) -> list[str]:
    return list(prepared.catalogue.items[catalogue_of.ITEM_TEXT].fillna(""))


def _before(raw: Path, whole: Prepared) -> list[Prepared]:
    """The windows before that of all rows, oldest first."""
    rows = tables.read_parquet(raw / "interactions", "interactions")
    items = tables.read_parquet(raw / "items.parquet", "items")
    found = [whole]
    while len(found) < WINDOWS:
        next_one = found[0].log
        start = next_one.time[next_one.window == TEST].min()
        rows = rows[rows[tables.TIME].astype("int64") < start].reset_index(drop=True)
        try:
            found.insert(0, _prepared(rows, items))
        except DataError as error:
            log.warning("windows: %d instead of %d; before them %s", len(found), WINDOWS, error)
            break
    return found[:-1]


def _prepared(rows: pd.DataFrame, items: pd.DataFrame) -> Prepared:
    """As `preprocess` would have made it of what was known at the newest of these rows."""
    as_of = rows[tables.TIME].max()
    known = items[tables.ITEM].isin(rows[tables.ITEM]) | (items[tables.AVAILABLE_FROM] <= as_of)
    with tempfile.TemporaryDirectory() as temporary:
        raw = Path(temporary) / "data" / "raw"
        tables.write_parquet(rows, raw / "interactions" / "month=all" / "part-0.parquet")
        tables.write_parquet(items[known].reset_index(drop=True), raw / "items.parquet")
        (raw / "manifest.json").write_text(json.dumps({"as_of": as_of.isoformat()}), encoding="utf-8")
        return load(raw)[0]
