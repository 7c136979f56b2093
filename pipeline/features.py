"""What the scorer is told about a point and an item: every model's opinion, and how far to trust it.

`fit_inputs` fits everything on the rows of one mask (collaborative matrices, popularity, item statistics);
`Inputs.features(points)` evaluates it on live histories. The scorer is fitted on points later than the rows
that its inputs were fitted on (stacking), then the inputs are fitted again on all of train.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from pipeline import baselines as b
from pipeline.content import Content, category_matrix
from pipeline.histories import MICROSECONDS_A_DAY, Catalogue, Log, Points
from pipeline.model import SequenceTower

HALF_LIVES = (1, 5, 30)  # history items
RECENT_SHARES = (0.01, 0.05, 0.2)  # popularity decays by half over the newest share of the rows
LAST_ITEMS = 8
IALS_FACTORS, IALS_REGULARISATION, IALS_ALPHA = 64, 20.0, 3.0
DISLIKED = 0.3  # weight of a history row that is no success
KEPT_NEIGHBOURS = 500  # an item's, in the EASE matrix that is saved: what is served is what was evaluated


@dataclass(frozen=True)
class Statistics:
    """What train says of each item, as (items,) float32; zero for an item that train does not have."""

    count: np.ndarray
    popularity: np.ndarray  # (items, 4): log1p overall, then recent over RECENT_SHARES
    value: np.ndarray  # mean value, in deviations from the overall mean, shrunk by 5 rows
    liked: np.ndarray  # share of successes above the overall one, shrunk likewise
    age: np.ndarray  # log1p days from the first row to the end of train
    silence: np.ndarray  # log1p days from the newest row to the end of train


@dataclass(frozen=True)
class Matrix:
    """How the collaborative models are fitted; chosen on validation."""

    positives_only: bool
    regularisation: float  # of EASE


@dataclass(frozen=True)
class Inputs:
    """Fitted inputs over one catalogue."""

    items: int
    ease: b.ItemMatrix
    knn: b.ItemMatrix
    ials: b.Factors
    statistics: Statistics
    value_mean: float
    value_deviation: float
    sequence: SequenceTower | None
    text: np.ndarray | None  # (items, width) float32 centred unit vectors; zero rows: no text
    categories: Content
    year: np.ndarray  # (items,) float64, NaN where unknown

    def features(self, points: Points) -> tuple[list[str], np.ndarray]:
        """Names and a (points, items, features) float32 array."""
        columns: dict[str, np.ndarray] = {}
        liking = b.liking(points.log, DISLIKED)
        weights = {h: points.weights(self.items, h, liking) for h in HALF_LIVES}
        self._collaborative(columns, weights)
        self._sequence(columns, points)
        self._text(columns, points, weights)
        self._content(columns, points, weights)
        self._items(columns)
        self._trust(columns, points)
        out = np.empty((len(points), self.items, len(columns)), np.float32)
        for place, column in enumerate(columns.values()):
            out[..., place] = column
        return list(columns), out

    def _collaborative(self, columns: dict[str, np.ndarray], weights: dict[int, sp.csr_matrix]) -> None:
        for half_life in HALF_LIVES:
            scores = np.nan_to_num(self.ease.score(weights[half_life]))
            columns[f"ease_{half_life}"] = _standardised(scores)
            if half_life == HALF_LIVES[1]:
                columns["ease_raw"] = scores
            columns[f"knn_{half_life}"] = _standardised(np.nan_to_num(self.knn.score(weights[half_life])))
            columns[f"ials_{half_life}"] = _standardised(np.nan_to_num(self.ials.score(weights[half_life])))

    def _sequence(self, columns: dict[str, np.ndarray], points: Points) -> None:
        if self.sequence is None:
            return
        # Relative to a uniform choice, so that catalogues of any size look alike.
        scores = self.sequence.score(points) + np.float32(np.log(max(1, (self.statistics.count > 0).sum())))
        columns["sequence"] = scores
        columns["sequence_z"] = _standardised(scores)

    def _text(
        self, columns: dict[str, np.ndarray], points: Points, weights: dict[int, sp.csr_matrix]
    ) -> None:
        if self.text is None:
            return
        for half_life in HALF_LIVES[1:]:
            columns[f"text_{half_life}"] = _unit(weights[half_life] @ self.text) @ self.text.T
        everything = points.weights(self.items)
        columns["text_mean"] = _unit(everything @ self.text) @ self.text.T
        nearest = np.zeros((len(points), self.items), np.float32)
        for back in range(1, LAST_ITEMS + 1):
            row = points.stop - back
            there = row >= points.start
            item = points.log.item[row[there]]
            nearest[there] = np.maximum(nearest[there], self.text[item] @ self.text.T)
        columns["text_max"] = nearest

    def _content(
        self, columns: dict[str, np.ndarray], points: Points, weights: dict[int, sp.csr_matrix]
    ) -> None:
        for half_life in HALF_LIVES[1:]:
            overlap = np.nan_to_num(self.categories.score(weights[half_life]))
            columns[f"categories_{half_life}"] = _standardised(overlap)
        known = np.isfinite(self.year)
        year = np.where(known, self.year, 0)
        recent = weights[HALF_LIVES[1]]
        total = recent @ known.astype(np.float64)
        mean = np.where(total > 0, (recent @ year) / np.where(total > 0, total, 1), np.nan)
        gap = np.nan_to_num((np.where(known, self.year, np.nan)[None, :] - mean[:, None]) / 10)
        columns["year_gap"], columns["year_distance"] = gap, np.abs(gap)
        now = 1970 + points.time / (MICROSECONDS_A_DAY * 365.2425)
        age = np.nan_to_num(now[:, None] - np.where(known, self.year, np.nan)[None, :])
        columns["release_age"] = np.log1p(np.maximum(age, 0))

    def _items(self, columns: dict[str, np.ndarray]) -> None:
        s = self.statistics
        for place, name in enumerate(("popularity", *(f"popularity_{share}" for share in RECENT_SHARES))):
            columns[name] = s.popularity[None, :, place]
        for name in ("value", "liked", "age", "silence"):
            columns[f"item_{name}"] = getattr(s, name)[None, :]
        columns["cold"] = (s.count == 0)[None, :]

    def _trust(self, columns: dict[str, np.ndarray], points: Points) -> None:
        lengths = points.lengths
        columns["history_length"] = np.log1p(lengths)[:, None]
        columns["history_empty"] = (lengths == 0)[:, None]
        point, row = points.rows()
        value = (row_values(points.log)[row] - self.value_mean) / self.value_deviation
        mean = np.bincount(point, value, minlength=len(points)) / (lengths + 3)
        columns["user_value"] = mean[:, None]


def fit_inputs(
    log: Log,
    rows: np.ndarray,
    catalogue: Catalogue,
    matrix: Matrix,
    text: np.ndarray | None,
    sequence: SequenceTower | None,
    seed: int,
) -> Inputs:
    """Fit on the rows of a mask; `text`: (items, width) centred unit vectors."""
    items = len(catalogue)
    met = b.interactions(log, rows & log.positive if matrix.positives_only else rows, items)
    values = row_values(log)
    mean = float(values[rows].mean()) if rows.any() else 0.0
    deviation = float(values[rows].std()) + 1e-6 if rows.any() else 1.0
    return Inputs(
        items=items,
        ease=b.ease(met, matrix.regularisation).pruned(KEPT_NEIGHBOURS),
        knn=b.item_knn(met, neighbours=100, shrinkage=30.0),
        ials=b.ials(met, IALS_FACTORS, IALS_REGULARISATION, IALS_ALPHA, seed),
        statistics=_statistics(log, rows, items, (values - mean) / deviation),
        value_mean=mean,
        value_deviation=deviation,
        sequence=sequence,
        text=text,
        categories=Content.of(category_matrix(catalogue)),
        year=years(catalogue),
    )


def row_values(log: Log) -> np.ndarray:
    """(rows of the log,) float32: the row's value; without one, 1 for a success and 0 for none."""
    return np.where(np.isnan(log.value), log.positive, log.value).astype(np.float32)


def years(catalogue: Catalogue) -> np.ndarray:
    if "year" not in catalogue.items:
        return np.full(len(catalogue), np.nan)
    return catalogue.items["year"].to_numpy(dtype=np.float64, na_value=np.nan)


def _statistics(log: Log, rows: np.ndarray, items: int, value: np.ndarray) -> Statistics:
    item, time = log.item[rows], log.time[rows]
    count = np.bincount(item, minlength=items)
    end = int(time.max(initial=0))
    newest_first = np.sort(time)[::-1]
    popularity = [b.popularity(log, rows, items)]
    for share in RECENT_SHARES:
        span = end - newest_first[int(share * (len(time) - 1))] if len(time) else 0
        half_life = max(span / MICROSECONDS_A_DAY, 1e-3)
        popularity.append(b.recent_popularity(log, rows, items, half_life))
    first, newest = np.full(items, end, np.int64), np.full(items, np.iinfo(np.int64).min)
    np.minimum.at(first, item, time)
    np.maximum.at(newest, item, time)
    seen = count > 0
    liked = log.positive[rows] - log.positive[rows].mean() if len(item) else np.zeros(0)
    return Statistics(
        count=count.astype(np.float32),
        popularity=np.log1p(np.stack(popularity, axis=1)).astype(np.float32),
        value=(np.bincount(item, value[rows], minlength=items) / (count + 5)).astype(np.float32),
        liked=(np.bincount(item, liked, minlength=items) / (count + 5)).astype(np.float32),
        age=np.log1p(np.where(seen, end - first, 0) / MICROSECONDS_A_DAY).astype(np.float32),
        silence=np.log1p(np.where(seen, end - np.where(seen, newest, end), 0) / MICROSECONDS_A_DAY).astype(
            np.float32
        ),
    )


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its deviation; a constant row becomes zeros."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return centred / np.where(deviation > 1e-8, deviation, 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
