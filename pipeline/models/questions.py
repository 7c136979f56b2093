"""One list, asked for by a user's id, by a history given in place, or by a text typed just now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables as t
from pipeline.data.histories import Log, Prepared, load_prepared
from pipeline.data.text import clean
from pipeline.errors import DataError
from pipeline.models.encoder import texts_to_vectors
from pipeline.models.ranking import popularity_order, top_k
from pipeline.models.recommender import Recommender, centred


def recommend(
    folder: Path,
    data: Path,
    *,
    user: str | None = None,
    items: list[str] | None = None,
    text: str | None = None,
    k: int = 10,
) -> list[dict[str, Any]]:
    """Top-k for a known user, a history given in place, or a text: rank, item_id, title, score, reasons."""
    prepared = load_prepared(data)
    model = Recommender.load(folder, prepared.catalogue.items)
    if text is not None:
        return _for_text(model, text, k)
    log, now = prepared.log, int(prepared.log.time.max(initial=0)) + 1
    if items is not None:
        log, who = _history_in_place(prepared, items, now), np.zeros(1, np.int32)
    else:
        who = pd.Index(prepared.user_ids).get_indexer([user]).astype(np.int32)
    points = log.points(who, np.full(1, -1, np.int32), np.full(1, now))
    order = popularity_order(model.inputs.statistics.popularity[:, 0], prepared.catalogue.ids)
    top, scores = top_k(model.score(points), points, prepared.catalogue, order, k)
    reasons = model.reasons(points, top)[0]
    return [
        _row(model, rank, item, scores[0, rank], reasons[rank])
        for rank, item in enumerate(top[0])
        if item >= 0
    ]


def _history_in_place(prepared: Prepared, items: list[str], now: int) -> Log:
    index = prepared.catalogue.index(np.array(items, dtype=object))
    if (index < 0).any():
        raise DataError(f"--items: {items[int((index < 0).argmax())]}: no such item_id in the catalogue")
    count = len(index)
    return replace(
        prepared.log,
        user=np.zeros(count, np.int32),
        item=index,
        time=now - 1 - np.arange(count)[::-1].astype(np.int64) * 1_000_000,
        value=np.full(count, np.nan, np.float32),
        event=np.full(count, "given", dtype=object),
        positive=np.ones(count, bool),
        fit=np.ones(count, bool),
        window=np.full(count, 2, np.int8),
        indptr=np.array([0, count], np.int64),
    )


def _for_text(model: Recommender, text: str, k: int) -> list[dict[str, Any]]:
    """By the cosine between the text and each item's, both centred."""
    if model.inputs.text is None or model.folder is None or model.centre is None:
        raise DataError("--text: the model was trained on items without texts: give --user or --items")
    encoder = model.encoder()
    assert encoder is not None
    vector, _ = texts_to_vectors(encoder, [clean(text, 10_000)])
    if not vector.any():
        raise DataError("--text: nothing is left of it after clean-up: write some words")
    score = model.inputs.text @ centred(vector, model.centre)[0]
    score[~model.inputs.text.any(axis=1)] = -np.inf
    top = np.argsort(-score, kind="stable")[:k]
    return [_row(model, rank, item, score[item], ["its text is near yours"]) for rank, item in enumerate(top)]


def _row(model: Recommender, rank: int, item: int, score: float, reasons: list[str]) -> dict[str, Any]:
    title = model.catalogue.items.iloc[item].get(t.TITLE)
    return {
        "rank": rank + 1,
        "item_id": str(model.catalogue.ids[item]),
        "title": None if title is None or pd.isna(title) else str(title),
        "score": None if np.isnan(score) else round(float(score), 6),
        "reasons": reasons,
    }
