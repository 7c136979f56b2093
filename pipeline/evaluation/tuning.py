"""Fits every baseline and chooses its settings on validation.

In: the prepared data, un-tuned item vectors. Out: one Fitted per baseline.
Rule: matrices come from train rows, popularity counts live; each setting in turn takes the value of its grid
with the best nDCG@10 (mean over users) at the validation points, of which at most POINTS are used (fewer of a
large catalogue), drawn by a fixed-salt hash. A small problem gets a second round, a large one shorter grids.
Where nothing can be told apart the first value stands. Nothing is fitted on validation.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY, Points, Prepared
from pipeline.evaluation.metrics import accuracy, mean_of_users, target_rank
from pipeline.models.baselines import (
    Factors,
    HistoryScorer,
    ItemMatrix,
    Scorer,
    ease,
    ials,
    interactions,
    item_knn,
    most_interacted,
    popularity,
    train_rows,
)
from pipeline.models.content import Content, VectorScorer, category_matrix
from pipeline.models.own_history import OwnHistory
from pipeline.models.popular import LivePopularity
from pipeline.models.ranking import popularity_order, rank_points

POINTS, FEWEST, SALT, K = 2000, 500, "evergreen.tuning", 10
CELLS = 10_000_000  # points x items of one trial, as long as FEWEST points remain
TWO_ROUNDS = 4_000_000  # cells up to which a second round is affordable
MAX_ITEMS = 8000  # of EASE's matrix
CACHE_BYTES = 400_000_000

Settings = dict[str, Any]
Build = Callable[[Settings], Scorer]
Prepares = tuple[Build, Mapping[str, Sequence[Any]]]

LARGE_ROWS, LARGE_SIDE, SHORT = 500_000, 4000, 3  # train rows; users and items; values of a shorter grid

HALF_LIVES = (5.0, 0.5, 1.0, 2.0, 10.0, 20.0, 50.0, np.inf)  # items of the history; the first is the start
DISLIKED = (1.0, 0.3, 0.0)  # weight of history items that are no success
HISTORY: dict[str, Sequence[Any]] = {"half_life": HALF_LIVES, "disliked_weight": DISLIKED}
RECENT_SHARES = tuple(2.0**-step for step in (5, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11))  # of train's span
# The half-life comes first: it matters most, and trying it fits nothing anew.
KNN: dict[str, Sequence[Any]] = {
    "half_life": HALF_LIVES,
    "positives_only": (True, False),
    "neighbours": (100, 50, 200, 20, 400),
    "shrinkage": (10.0, 0.0, 30.0, 3.0, 100.0),
    "disliked_weight": DISLIKED,
}
EASE: dict[str, Sequence[Any]] = {
    "half_life": HALF_LIVES,
    "positives_only": (True, False),
    "regularisation": (300.0, 100.0, 1000.0, 30.0, 3000.0),
    "disliked_weight": DISLIKED,
}
IALS: dict[str, Sequence[Any]] = {
    "half_life": HALF_LIVES,
    "factors": (64, 32, 128),
    "regularisation": (10.0, 3.0, 30.0, 100.0),
    "alpha": (10.0, 3.0, 30.0, 1.0),
    "positives_only": (True, False),
    "disliked_weight": DISLIKED,
}
FITTED = (set(KNN) | set(EASE) | set(IALS)) - set(HISTORY)  # trying these means fitting anew


@dataclass(frozen=True)
class Fitted:
    scorer: Scorer
    settings: Settings  # chosen on validation
    validation: float  # nDCG@10 at the validation points used; NaN without any
    seconds: float  # wall time of fitting and choosing
    tried: int  # settings


def sample(prepared: Prepared, limit: int | None = None) -> Points:
    """At most `limit` validation points (None: as many as CELLS allow), by hash, in their order."""
    points = prepared.validation
    if limit is None:
        limit = max(FEWEST, min(POINTS, CELLS // max(len(prepared.catalogue), 1)))
    if len(points) <= limit:
        return points
    items = prepared.catalogue.ids
    names = zip(prepared.user_ids[points.user], items[points.target], points.time, strict=True)
    digests = [hashlib.md5(f"{SALT}|{u}|{i}|{moment}".encode()).hexdigest() for u, i, moment in names]
    return points[np.sort(np.argsort(np.array(digests), kind="stable")[:limit])]


def tune(
    build: Build, grid: Mapping[str, Sequence[Any]], quality: Callable[[Scorer], float], rounds: int = 2
) -> Fitted:
    """Coordinate descent from the first value of every setting, in the grid's order, `rounds` times over."""
    begin = time.perf_counter()
    tried: dict[tuple[Any, ...], float] = {}

    def found(settings: Settings) -> float:
        key = tuple(settings.values())
        if key not in tried:
            tried[key] = quality(build(settings))
        return tried[key]

    best = {name: values[0] for name, values in grid.items()}
    for _ in range(rounds):
        before = best
        for name, values in grid.items():
            for settings in [{**best, name: value} for value in values]:
                if found(settings) > found(best):
                    best = settings
        if best == before:
            break
    value = found(best)
    return Fitted(build(best), best, value, time.perf_counter() - begin, len(tried))


def fit_baselines(
    prepared: Prepared,
    vectors: np.ndarray | None,
    seed: int,
    delay_seconds: float = 0.0,
    progress: Callable[[str], object] = lambda name: None,
) -> dict[str, Fitted]:
    """Every baseline by name. `vectors` (items, d), zero where an item has no text; None: no frozen_encoder.

    `delay_seconds`: after which a row is known to those that count live. `progress` hears each name before
    its turn.
    """
    fitted = {}
    again = {"own_history": _own_history} if prepared.log.repeats else {}
    for name, prepare in (baselines(vectors, seed, delay_seconds) | again).items():
        progress(name)
        fitted[name] = choose(prepared, prepare)
    return fitted


def baselines(
    vectors: np.ndarray | None, seed: int, delay_seconds: float = 0.0
) -> dict[str, Callable[[Prepared], Prepares]]:
    """Name -> what makes, of the data, a function from settings to a scorer and the grid of the settings."""
    todo: dict[str, Callable[[Prepared], Prepares]] = {
        "popularity": lambda data: _popularity(data, delay_seconds),
        "recent_popularity": lambda data: _recent_popularity(data, delay_seconds),
        "item_knn": _item_knn,
        "ease": _ease,
        "ials": lambda data: _ials(data, seed),
        "content": _content,
        "frozen_encoder": lambda data: _frozen_encoder(data, vectors),
    }
    if vectors is None:
        del todo["frozen_encoder"]
    return todo


def choose(prepared: Prepared, prepare: Callable[[Prepared], Prepares]) -> Fitted:
    """One baseline with the settings that validation prefers."""
    build, grid = prepare(prepared)
    rounds = 2 if len(sample(prepared)) * len(prepared.catalogue) <= TWO_ROUNDS else 1
    return tune(build, _worthwhile(prepared, grid), quality(prepared), rounds)


def frozen_order(prepared: Prepared) -> np.ndarray:
    """(items,) place of each item in train's popularity order: what every model falls back on."""
    return popularity_order(_train_popularity(prepared), prepared.catalogue.ids)


def quality(prepared: Prepared) -> Callable[[Scorer], float]:
    """What settings are chosen by: a scorer's nDCG@10 at the sampled validation points."""
    points, order = sample(prepared), frozen_order(prepared)

    def of(scorer: Scorer) -> float:
        listed, _ = rank_points(scorer, points, prepared.catalogue, order, K)
        return mean_of_users(accuracy(target_rank(listed, points.target), K)["ndcg"], points.user)

    return of


def _worthwhile(prepared: Prepared, grid: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The grid without settings that change nothing as every row is a success; shorter if fits are slow."""
    rows = train_rows(prepared.log)
    sides = (len(np.unique(column[rows])) for column in (prepared.log.user, prepared.log.item))
    slow = rows.sum() > LARGE_ROWS or min(sides) > LARGE_SIDE
    idle = {"positives_only", "disliked_weight"} if prepared.log.positive.all() else set()
    kept = {name: 1 if name in idle else SHORT if slow and name in FITTED else None for name in grid}
    return {name: values[: kept[name]] for name, values in grid.items()}


def _train_popularity(prepared: Prepared) -> np.ndarray:
    return popularity(prepared.log, train_rows(prepared.log), len(prepared.catalogue))


def _popularity(prepared: Prepared, delay_seconds: float) -> Prepares:
    scorer = LivePopularity.of("popularity", prepared.log, len(prepared.catalogue), np.inf, delay_seconds)
    return (lambda settings: scorer), {}


def _recent_popularity(prepared: Prepared, delay_seconds: float) -> Prepares:
    times = prepared.log.time[train_rows(prepared.log)]
    span_days = max(int(np.ptp(times)) if len(times) else 0, 1) / MICROSECONDS_A_DAY

    def build(settings: Settings) -> Scorer:
        half_life, items = settings["half_life_days"], len(prepared.catalogue)
        return LivePopularity.of("recent_popularity", prepared.log, items, half_life, delay_seconds)

    return build, {"half_life_days": tuple(span_days * share for share in RECENT_SHARES)}


def _matrix(prepared: Prepared, positives_only: bool) -> sp.csr_matrix:
    rows = train_rows(prepared.log, positives_only)
    return interactions(prepared.log, rows, len(prepared.catalogue))


def _from_history(
    prepared: Prepared, name: str, score: Callable[..., np.ndarray], settings: Settings
) -> Scorer:
    items = len(prepared.catalogue)
    return HistoryScorer(name, items, score, settings["half_life"], settings["disliked_weight"])


def _room(size: int) -> int:
    """How many fitted models of `size` bytes are kept while settings are tried."""
    return max(1, min(16, CACHE_BYTES // max(size, 1)))


def _item_knn(prepared: Prepared) -> Prepares:
    @lru_cache(maxsize=_room(8 * len(prepared.catalogue) * max(KNN["neighbours"])))
    def fit(positives_only: bool, neighbours: int, shrinkage: float) -> ItemMatrix:
        return item_knn(_matrix(prepared, positives_only), neighbours, shrinkage)

    def build(settings: Settings) -> Scorer:
        matrix = fit(settings["positives_only"], settings["neighbours"], settings["shrinkage"])
        return _from_history(prepared, "item_knn", matrix.score, settings)

    return build, KNN


def _ease(prepared: Prepared) -> Prepares:
    kept = len(most_interacted(_matrix(prepared, False), MAX_ITEMS))

    @lru_cache(maxsize=_room(4 * kept**2))
    def fit(positives_only: bool, regularisation: float) -> ItemMatrix:
        return ease(_matrix(prepared, positives_only), regularisation, MAX_ITEMS)

    def build(settings: Settings) -> Scorer:
        matrix = fit(settings["positives_only"], settings["regularisation"])
        return _from_history(prepared, "ease", matrix.score, settings)

    return build, EASE


def _ials(prepared: Prepared, seed: int) -> Prepares:
    @lru_cache(maxsize=_room(4 * len(prepared.catalogue) * max(IALS["factors"])))
    def fit(positives_only: bool, factors: int, regularisation: float, alpha: float) -> Factors:
        return ials(_matrix(prepared, positives_only), factors, regularisation, alpha, seed)

    def build(settings: Settings) -> Scorer:
        fitted = ("positives_only", "factors", "regularisation", "alpha")
        model = fit(*(settings[name] for name in fitted))
        return _from_history(prepared, "ials", model.score, settings)

    return build, IALS


def _own_history(prepared: Prepared) -> Prepares:
    items = len(prepared.catalogue)
    return (lambda settings: OwnHistory("own_history", items, **settings)), HISTORY


def _content(prepared: Prepared) -> Prepares:
    categories = category_matrix(prepared.catalogue)
    content = Content.of(categories)
    grid = HISTORY if categories.nnz else {name: values[:1] for name, values in HISTORY.items()}
    return (lambda settings: _from_history(prepared, "content", content.score, settings)), grid


def _frozen_encoder(prepared: Prepared, vectors: np.ndarray | None) -> Prepares:
    assert vectors is not None
    scorer = VectorScorer.of(vectors)
    return (lambda settings: _from_history(prepared, "frozen_encoder", scorer.score, settings)), HISTORY
