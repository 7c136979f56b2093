"""One list, asked for by a user's id, by a history given in place, or by a text typed just now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Points, Prepared, load_prepared
from pipeline.data.text import clean
from pipeline.errors import DataError
from pipeline.models.ranking import popularity_order, rank_points, top_k
from pipeline.models.recommender import Recommender, centred
from pipeline.models.words import Typed, Words

WORDS = 3.0  # weight of the cosine of words beside that of meaning: `evergreen bench text`


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
    log, now = prepared.log, prepared.now
    model = Recommender.load(folder, prepared.catalogue.items, log)
    order = popularity_order(model.popularity, prepared.catalogue.ids)
    if text is not None:
        nobody = log.points(np.full(1, -1, np.int32), np.full(1, -1, np.int32), np.full(1, now))
        words = Words.of(prepared.catalogue.items["item_text"].fillna("").tolist())
        typed = words.typed(text)
        closeness = text_closeness(model, _vector(model, text), typed)
        top, scores = top_k(closeness[None], nobody, prepared.catalogue, order, k)
        scored = [(item, score) for item, score in zip(top[0], scores[0], strict=True) if not np.isnan(score)]
        return [
            _row(model, rank, item, score, [text_reason(typed, item)])
            for rank, (item, score) in enumerate(scored)
        ]
    if items is not None:
        points = history_in_place(prepared, items, now)
    else:
        who = pd.Index(prepared.user_ids).get_indexer([user]).astype(np.int32)
        points = log.points(who, np.full(1, -1, np.int32), np.full(1, now))
    top, scores = rank_points(model, points, prepared.catalogue, order, k)
    reasons = model.reasons(points, top)[0]
    return [
        _row(model, rank, item, scores[0, rank], reasons[rank])
        for rank, item in enumerate(top[0])
        if item >= 0
    ]


def history_in_place(prepared: Prepared, items: list[str], now: int) -> Points:
    """One point at `now` (microseconds), just after these items were taken, the last one last."""
    index = prepared.catalogue.index(np.array(items, dtype=object))
    if (index < 0).any():
        raise DataError(f"--items: {items[int((index < 0).argmax())]}: no such item_id in the catalogue")
    count, users = len(index), len(prepared.user_ids)
    log = replace(
        prepared.log,
        # Another user than all of the log's, whose rows the live state has: whoever asks is no taker of it.
        user=np.full(count, users, np.int32),
        item=index,
        time=now - 1 - np.arange(count)[::-1].astype(np.int64) * 1_000_000,
        value=np.full(count, np.nan, np.float32),
        positive=np.ones(count, bool),
        fit=np.ones(count, bool),
        window=np.full(count, 2, np.int8),
        indptr=np.r_[np.zeros(users + 1, np.int64), count],
    )
    return log.points(np.full(1, users, np.int32), np.full(1, -1, np.int32), np.full(1, now))


def text_closeness(model: Recommender, vector: np.ndarray, typed: Typed) -> np.ndarray:
    """(items,) float32: of the text to each item's, by meaning and by words; NaN for items without text.

    `vector`: (width,) of the text, centred.
    """
    part = model.parts.text
    assert part is not None
    score: np.ndarray = part.vectors @ vector + WORDS * typed.closeness()
    score[~part.there] = np.nan
    return score


def _vector(model: Recommender, text: str) -> np.ndarray:
    """(width,) float32 of the text, centred."""
    if model.text is None or model.folder is None or model.centre is None:
        raise DataError(
            "--text: the model was trained on items without texts, or all with one: give --user or --items"
        )
    encoder = model.question_encoder()
    assert encoder is not None
    vector = encoder.vectors([clean(text, 10_000)])
    if not vector.any():
        raise DataError("--text: nothing is left of it after clean-up: write some words")
    found: np.ndarray = centred(vector, model.centre)[0]
    return found


def text_reason(typed: Typed, item: int) -> str:
    """Why the item answers the text: the words that both have, if there are any."""
    shared = typed.shared(item)
    return f"its text has {', '.join(shared)}" if shared else "its text is near yours"


def _row(model: Recommender, rank: int, item: int, score: float, reasons: list[str]) -> dict[str, Any]:
    title = model.catalogue.items.iloc[item].get(tables.TITLE)
    return {
        "rank": rank + 1,
        "item_id": str(model.catalogue.ids[item]),
        "title": None if title is None or pd.isna(title) else str(title),
        "score": None if np.isnan(score) else round(float(score), 6),
        "reasons": reasons,
    }
