"""Users and items of the evaluation report: lists and what was taken, cold items, what fine-tuning moved.

In: the prepared data, the challenger's (points, k) lists, item vectors before and after fine-tuning. Out:
dictionaries as pipeline/evaluation/report.py takes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Catalogue, Points, Prepared
from pipeline.evaluation.slices import slices
from pipeline.models.baselines import blocks, train_rows
from pipeline.models.content import VectorScorer
from pipeline.models.pairs import largest

EXAMPLES, ITEMS, SALT = 10, 10, "evergreen.examples"
MOVED, NEIGHBOURS, MOST_ASKED = 5, 5, 5_000
COLD_ITEMS, AUDIENCE = 10, 3

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


def single_items(
    prepared: Prepared, listed: np.ndarray, scorer: Any, vectors: np.ndarray | None
) -> dict[str, list[Json]]:
    """What the report tells of single items; `vectors`: un-tuned."""
    count = np.bincount(prepared.log.item[train_rows(prepared.log)], minlength=len(prepared.catalogue))
    before = None if vectors is None else VectorScorer.of(vectors).vectors
    after = getattr(scorer, "text", None)
    return {
        "cold_items": cold_items(prepared, listed, count),
        "moved": moved(prepared.catalogue, before, after),
    }


def cold_items(prepared: Prepared, listed: np.ndarray, count: np.ndarray) -> list[Json]:
    """The items without rows in train ((items,) `count`) that lists hold most often, and who would see them.

    {"item", "points": how many lists of ten hold it, "users": [{"user_id", "history": [ITEM, ...]}, ...]}.
    """
    point, place = np.nonzero(listed[:, :ITEMS] >= 0)
    items = listed[point, place]
    new = count[items] == 0
    point, items = point[new], items[new]
    found, times = np.unique(items, return_counts=True)
    item, told = _titles(prepared.catalogue), []
    for index in found[np.argsort(-times, kind="stable")[:COLD_ITEMS]]:
        at = point[items == index]
        _, first = np.unique(prepared.test.user[at], return_index=True)
        seers = at[np.sort(first)]
        longest = seers[np.argsort(-prepared.test.lengths[seers], kind="stable")[:AUDIENCE]]
        users = [
            {
                "user_id": str(prepared.user_ids[prepared.test.user[row]]),
                "history": [item(i) for i in _newest(prepared.test[row : row + 1])[:AUDIENCE]],
            }
            for row in longest
        ]
        told.append({"item": item(index), "points": len(at), "users": users})
    return told


def moved(catalogue: Catalogue, before: np.ndarray | None, after: np.ndarray | None) -> list[Json]:
    """Items whose nearest texts fine-tuning changed most: {"item", "before": [ITEM, ...], "after": [...]}.

    (items, width) unit vectors, zero rows without text. Most: fewest of the NEIGHBOURS stayed, then the
    greatest fall of the old ones' cosines; at most MOST_ASKED items, evenly chosen, are looked at. None or
    equal vectors: nothing moved.
    """
    if (
        before is None
        or after is None
        or before.shape != after.shape
        or np.allclose(before, after, atol=1e-3)
    ):
        return []
    there = np.flatnonzero(before.any(axis=1) & after.any(axis=1))
    if len(there) <= NEIGHBOURS:
        return []
    old, new, kept, fall = [], [], [], []
    asked = np.arange(0, len(there), -(-len(there) // MOST_ASKED))
    before, after = before[there], after[there]
    for part in blocks(len(asked), len(there)):
        rows = asked[part]
        cosines = [vectors[rows] @ vectors.T for vectors in (before, after)]
        for cosine in cosines:
            cosine[np.arange(len(rows)), rows] = -np.inf
        nearest = [largest(cosine, NEIGHBOURS) for cosine in cosines]
        was, now = (np.take_along_axis(cosine, nearest[0], axis=1) for cosine in cosines)
        old.append(there[nearest[0]])
        new.append(there[nearest[1]])
        kept.append((nearest[0][:, :, None] == nearest[1][:, None, :]).sum(axis=(1, 2)))
        fall.append((was - now).mean(axis=1))
    order = np.lexsort((-np.concatenate(fall), np.concatenate(kept)))[:MOVED]
    item, ranked = _titles(catalogue), (np.concatenate(old), np.concatenate(new))
    return [
        {
            "item": item(there[asked[row]]),
            **{
                key: [item(i) for i in rows[row]]
                for key, rows in zip(("before", "after"), ranked, strict=True)
            },
        }
        for row in order
        if np.concatenate(kept)[row] < NEIGHBOURS
    ]


def _newest(point: Points) -> np.ndarray:
    _, row = point.newest(ITEMS).rows()
    return point.log.item[row[::-1]]


def _titles(catalogue: Catalogue) -> Callable[[int], Json]:
    ids = catalogue.ids
    titles = catalogue.items.get(tables.TITLE, pd.Series([None] * len(ids))).to_numpy(dtype=object)

    def item(index: int) -> Json:
        title = titles[index]
        return {"item_id": str(ids[index]), "title": title if isinstance(title, str) else None}

    return item


def moment(microseconds: int) -> str:
    return pd.Timestamp(int(microseconds), unit="us", tz="UTC").isoformat()
