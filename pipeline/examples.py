"""Ten users of the evaluation report: history, what the challenger showed, and what they took.

In: the prepared data, the challenger's (points, k) lists. Out: dictionaries as pipeline/report.py takes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pipeline import tables as t
from pipeline.histories import Catalogue, Points, Prepared
from pipeline.slices import slices

EXAMPLES, ITEMS, SALT = 10, 10, "evergreen.examples"

Json = dict[str, Any]


def example_points(prepared: Prepared) -> np.ndarray:
    """Indices of one test point each of ten users, drawn by a fixed-salt hash; with a history if possible."""
    points = prepared.test
    digests = np.array(
        [hashlib.md5(f"{SALT}|{point}".encode()).hexdigest() for point in prepared.test_point_ids],
        dtype="U32",
    )
    order = np.lexsort((digests, points.lengths == 0))
    _, first = np.unique(points.user[order], return_index=True)
    return order[np.sort(first)[:EXAMPLES]]


def examples(prepared: Prepared, listed: np.ndarray, scorer: Any) -> list[Json]:
    """The lists at example_points, with titles, and reasons if the scorer can give them."""
    rows = example_points(prepared)
    chosen, listed = prepared.test[rows], listed[rows, :ITEMS]
    reasons: list[list[list[str]]] = [[[]] * ITEMS] * len(rows)
    if hasattr(scorer, "reasons"):
        reasons = scorer.reasons(chosen, listed)
    named = {name: mask[rows] for name, mask in slices(prepared.test).items() if name != "all"}
    item = _titles(prepared.catalogue)
    found = []
    for row in range(len(rows)):
        shown = [index for index in listed[row] if index >= 0]
        found.append(
            {
                "user_id": str(prepared.user_ids[chosen.user[row]]),
                "timestamp": moment(chosen.time[row]),
                "slice": next((name for name in reversed(named) if named[name][row]), None),
                "history_length": int(chosen.lengths[row]),
                "history": [item(index) for index in _newest(chosen[row : row + 1])],
                "list": [
                    item(index) | {"hit": bool(index == chosen.target[row]), "reasons": why}
                    for index, why in zip(shown, reasons[row], strict=False)
                ],
                "targets": [item(chosen.target[row])],
            }
        )
    return found


def _newest(point: Points) -> np.ndarray:
    _, row = point.newest(ITEMS).rows()
    return point.log.item[row[::-1]]


def _titles(catalogue: Catalogue) -> Callable[[int], Json]:
    ids = catalogue.ids
    titles = catalogue.items.get(t.TITLE, pd.Series([None] * len(ids))).to_numpy(dtype=object)

    def item(index: int) -> Json:
        title = titles[index]
        return {"item_id": str(ids[index]), "title": title if isinstance(title, str) else None}

    return item


def moment(microseconds: int) -> str:
    return pd.Timestamp(int(microseconds), unit="us", tz="UTC").isoformat()
