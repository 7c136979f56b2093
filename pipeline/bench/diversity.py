"""What a list's `diversity` costs: nDCG@10 and likeness within lists as the service makes them.

In: models/champion, data/raw and data/prepared of the working directory; its newest POINTS test points, or
EVERGREEN_BENCH_POINTS of them. Each is asked as the service is (`POST /recommend` with `user_id`, `as_of` its
moment and each of DIVERSITIES). Out: nDCG@10, a mean over users, with the paired difference to 0 and its 95 %
interval; `text` and `categories`: 1 - mean cosine of all pairs of a list; coverage of these lists; CPU ms.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.bench._asked import number_of
from pipeline.data.histories import Points, load_prepared
from pipeline.errors import DataError
from pipeline.evaluation import metrics
from pipeline.models.artifacts import has_model

OWN = Path("data/prepared")
POINTS, K, REDRAWN = 1_000, 10, 1_000
DIVERSITIES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError for a folder of data, and without a champion or test points."""
    if data is not None:
        raise DataError("bench diversity: --data: it asks the champion in models/champion: leave it out")
    if not has_model(Path("models/champion")):
        raise DataError("no models/champion here: run `evergreen cycle`")
    from pipeline.serve.engine import Engine
    from pipeline.serve.events import Store

    prepared = load_prepared(OWN)
    most = number_of("POINTS", POINTS)
    chosen = np.sort(np.argsort(-prepared.test.time, kind="stable")[:most])
    points = prepared.test[chosen]
    if not len(points):
        raise DataError("data/prepared has no test points: collect more data")
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as folder:
        store = Store(f"sqlite:///{folder}/events.db")
        engine = Engine(Path.cwd(), store)
        try:
            engine.load()
            target = np.array(
                [engine.world.place.get(str(prepared.catalogue.ids[item]), -2) for item in points.target]
            )
            listed, seconds = _asked(engine, points, prepared.user_ids)
            model, available = engine.world.model, _available(engine.world.model.catalogue, points)
        finally:
            engine.close()
            store.close()
    figures = {}
    rows = [_row(each, model, available) for each in listed]
    for diversity, row, spent, ndcg in zip(
        DIVERSITIES, rows, seconds, _ndcg(listed, target, points), strict=True
    ):
        figures[f"{diversity:g}"] = ndcg | row | {"cpu_ms": 1000 * spent / len(points)}
    first, users = figures[f"{DIVERSITIES[0]:g}"], len(np.unique(points.user))
    ratios = {
        f"ndcg_of_none_at_{name}": row["ndcg"] / first["ndcg"] if first["ndcg"] else None
        for name, row in figures.items()
        if row is not first
    }
    conditions = {"points": len(points), "users": users, "items": len(model.catalogue), "k": K}
    return {"name": "diversity", "conditions": conditions, "figures": figures, "ratios": ratios}


def _ndcg(listed: np.ndarray, target: np.ndarray, points: Points) -> list[Json]:
    """Of each diversity, with the difference to the first."""
    gain = [metrics.discounted(metrics.target_rank(each, target), K) for each in listed]
    means = metrics.group_means(np.stack(gain, axis=1), points.user)  # (users, diversities)
    low, high = metrics.interval(metrics.user_bootstrap(means - means[:, :1], REDRAWN, 0))
    return [
        {
            "ndcg": float(mean),
            "ndcg_minus": float((means[:, place] - means[:, 0]).mean()),
            "pair_low": float(low[place]),
            "pair_high": float(high[place]),
        }
        for place, mean in enumerate(means.mean(axis=0))
    ]


def _row(listed: np.ndarray, model: Any, available: np.ndarray) -> Json:
    """Unlikeness within lists by text and by categories, and coverage."""
    kinds = model.parts.kinds.categories.toarray()
    vectors = {"text": model.text, "categories": kinds}
    found = {
        name: float(np.nanmean(metrics.list_diversity(listed, each, [K])[:, 0]))
        for name, each in vectors.items()
        if each is not None and each.any()
    }
    return found | {"coverage": metrics.coverage(listed, available)}


def _available(catalogue: Any, points: Points) -> np.ndarray:
    """(items,) bool: on offer at some moment between the first point and the last."""
    found: np.ndarray = (catalogue.available_from <= points.time.max()) & (
        points.time.min() < catalogue.available_until
    )
    return found


def _asked(engine: Any, points: Points, user_ids: Any) -> tuple[np.ndarray, np.ndarray]:
    """((diversities, points, K) items of the engine, -1 behind a list's end; CPU seconds of each)."""
    from pipeline.serve.messages import Question

    listed = np.full((len(DIVERSITIES), len(points), K), -1, np.int32)
    seconds = np.zeros(len(DIVERSITIES))
    place = engine.world.place
    for row in tqdm(range(len(points)), desc="diversity", unit="point", disable=None, leave=False):
        moment = np.datetime64(int(points.time[row]), "us").item().isoformat() + "Z"
        user = str(user_ids[points.user[row]])
        for number, diversity in enumerate(DIVERSITIES):
            question = Question.model_validate(
                {"user_id": user, "as_of": moment, "k": K, "diversity": diversity, "explain": False}
            )
            begin = time.process_time()
            answer, _ = engine.recommend(question)
            seconds[number] += time.process_time() - begin
            found = [place[item.item_id] for item in answer.items]
            listed[number, row, : len(found)] = found
    return listed, seconds
