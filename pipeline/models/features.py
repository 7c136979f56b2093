"""What the scorer is told about a point and an item: every model's opinion, and how far to trust it.

`fit_inputs` fits everything on the rows of one mask (collaborative matrices, popularity, item statistics);
`Inputs.columns(points)` evaluates it on live histories. The scorer is fitted on points later than the rows
that its inputs were fitted on (stacking), then the inputs are fitted again on all of train.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from pipeline.data.histories import MICROSECONDS_A_DAY, Catalogue, Log, Points, days_of_newest
from pipeline.models import baselines as b
from pipeline.models import cold
from pipeline.models.content import Content, category_matrix
from pipeline.models.networks import SequenceTower

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


Columns = dict[str, np.ndarray]
"""Name -> float32 array that broadcasts to (points, items)."""


@dataclass(frozen=True)
class Inputs:
    """Fitted inputs over one catalogue. Variants of one fit differ in `sequence` and `text` alone."""

    items: int
    ease: b.ItemMatrix
    knn: b.ItemMatrix
    ials: b.Factors
    statistics: Statistics
    value_mean: float
    value_deviation: float
    sequence: SequenceTower | None
    text: np.ndarray | None  # (items, width) float32 centred unit vectors; zero rows: no text
    imputed: cold.Imputed | None  # what texts let expect of items; None without texts
    categories: Content
    year: np.ndarray  # (items,) float64, NaN where unknown

    def columns(self, points: Points) -> Columns:
        """Every feature by name."""
        asked = Asked.of(points, self.items)
        shared = self.shared(asked)
        return shared | self.own(asked, shared)

    def shared(self, asked: Asked) -> Columns:
        """The features that do not depend on text and sequence tower: equal for all variants of one fit."""
        return self._collaborative(asked) | self._content(asked) | self._items() | self._trust(asked.points)

    def own(self, asked: Asked, shared: Columns) -> Columns:
        return self._sequence(asked.points) | self._text(asked) | self._imputed(asked, shared)

    def with_text(self, text: np.ndarray | None, sequence: SequenceTower | None) -> Inputs:
        """A variant of this fit."""
        imputed = None
        if text is not None:
            told = cold.told(text, self.categories, self.year)
            imputed = cold.Imputed.of(text, told, self.ials, self.statistics.popularity[:, -1])
        return replace(self, text=text, sequence=sequence, imputed=imputed)

    def hide(self, items: np.ndarray) -> Inputs:
        """As if train had never held the items of an (items,) mask."""
        there = {name: getattr(self.statistics, name) for name in Statistics.__dataclass_fields__}
        left = {
            name: np.where(items.reshape(-1, *[1] * (a.ndim - 1)), np.float32(0), a)
            for name, a in there.items()
        }
        hidden = replace(
            self,
            ease=cold.hide_matrix(self.ease, items),
            knn=cold.hide_matrix(self.knn, items),
            ials=cold.hide_factors(self.ials, items),
            statistics=Statistics(**left),
        )
        tower = None if self.sequence is None else cold.hide_tower(self.sequence, items)
        imputed = self.imputed
        if imputed is not None and self.text is not None:
            told = cold.told(self.text, self.categories, self.year)
            imputed = imputed.hide(items, told, hidden.ials, hidden.statistics.popularity[:, -1])
        return replace(hidden, sequence=tower, imputed=imputed)

    def _imputed(self, asked: Asked, shared: Columns) -> Columns:
        if self.imputed is None:
            return {}
        half_life = HALF_LIVES[1]
        columns = {
            f"imputed_{name}": _standardised(shared[f"{name}_{half_life}"] @ self.imputed.neighbours)
            for name in ("ease", "knn")
        }
        ials = np.nan_to_num(asked.users[half_life] @ self.imputed.vectors.T)
        popularity = self.imputed.popularity[None, :]
        return columns | {"imputed_ials": _standardised(ials), "imputed_popularity": popularity}

    def _collaborative(self, asked: Asked) -> Columns:
        columns: Columns = {}
        for half_life in HALF_LIVES:
            scores = np.nan_to_num(self.ease.score(asked.weights[half_life]))
            columns[f"ease_{half_life}"] = _standardised(scores)
            if half_life == HALF_LIVES[1]:
                columns["ease_raw"] = scores
            columns[f"knn_{half_life}"] = _standardised(
                np.nan_to_num(self.knn.score(asked.weights[half_life]))
            )
            asked.users[half_life] = self.ials.users(asked.weights[half_life])
            scores = np.nan_to_num(self.ials.rate(asked.users[half_life], asked.weights[half_life]))
            columns[f"ials_{half_life}"] = _standardised(scores)
        return columns

    def _sequence(self, points: Points) -> Columns:
        if self.sequence is None:
            return {}
        # Relative to a uniform choice, so that catalogues of any size look alike.
        scores = self.sequence.score(points) + np.float32(np.log(max(1, (self.statistics.count > 0).sum())))
        return {"sequence": scores, "sequence_z": _standardised(scores)}

    def _text(self, asked: Asked) -> Columns:
        if self.text is None:
            return {}
        points, columns = asked.points, {}
        for half_life in HALF_LIVES[1:]:
            columns[f"text_{half_life}"] = _unit(asked.weights[half_life] @ self.text) @ self.text.T
        columns["text_mean"] = _unit(points.weights(self.items) @ self.text) @ self.text.T
        point, row = points.newest(LAST_ITEMS).rows()
        item, place = np.unique(points.log.item[row], return_inverse=True)
        near = self.text[item] @ self.text.T
        nearest = np.zeros((len(points), self.items), np.float32)
        back = points.stop[point] - row
        for step in range(1, LAST_ITEMS + 1):  # one item of each history at a time
            turn = back == step
            nearest[point[turn]] = np.maximum(nearest[point[turn]], near[place[turn]])
        return columns | {"text_max": nearest}

    def _content(self, asked: Asked) -> Columns:
        columns: Columns = {}
        for half_life in HALF_LIVES[1:]:
            overlap = np.nan_to_num(self.categories.score(asked.weights[half_life]))
            columns[f"categories_{half_life}"] = _standardised(overlap)
        known = np.isfinite(self.year)
        year = np.where(known, self.year, 0)
        recent = asked.weights[HALF_LIVES[1]]
        total = recent @ known.astype(np.float64)
        mean = np.where(total > 0, (recent @ year) / np.where(total > 0, total, 1), np.nan)
        unknown = np.where(known, self.year, np.nan)[None, :]
        gap = np.nan_to_num((unknown - mean[:, None]) / 10).astype(np.float32)
        now = 1970 + asked.points.time / (MICROSECONDS_A_DAY * 365.2425)
        age = np.nan_to_num(now[:, None] - unknown).astype(np.float32)
        return columns | {
            "year_gap": gap,
            "year_distance": np.abs(gap),
            "release_age": np.log1p(np.maximum(age, 0)),
        }

    def _items(self) -> Columns:
        s = self.statistics
        names = ("popularity", *(f"popularity_{share}" for share in RECENT_SHARES))
        columns = {name: s.popularity[None, :, place] for place, name in enumerate(names)}
        columns |= {
            f"item_{name}": getattr(s, name)[None, :] for name in ("value", "liked", "age", "silence")
        }
        return columns | {"cold": (s.count == 0).astype(np.float32)[None, :]}

    def _trust(self, points: Points) -> Columns:
        lengths = points.lengths
        point, row = points.rows()
        value = (row_values(points.log)[row] - self.value_mean) / self.value_deviation
        mean = np.bincount(point, value, minlength=len(points)) / (lengths + 3)
        columns = {
            "history_length": np.log1p(lengths),
            "history_empty": lengths == 0,
            "user_value": mean,
        }
        return {name: column.astype(np.float32)[:, None] for name, column in columns.items()}


@dataclass(frozen=True)
class Asked:
    """Points with the recency weights of their histories, which most features start from."""

    points: Points
    weights: dict[int, sp.csr_matrix]  # half-life -> (points, items)
    users: dict[int, np.ndarray] = field(default_factory=dict)  # -> (points, factors) of iALS, by `shared`

    @classmethod
    def of(cls, points: Points, items: int) -> Asked:
        liking = b.liking(points.log, DISLIKED)
        return cls(points, {h: points.weights(items, h, liking) for h in HALF_LIVES})


def fit_inputs(
    log: Log,
    rows: np.ndarray,
    catalogue: Catalogue,
    matrix: Matrix,
    seed: int,
) -> Inputs:
    """Fit on the rows of a mask; text and sequence tower are for the caller to put in."""
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
        sequence=None,
        text=None,
        imputed=None,
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
    popularity = [b.popularity(log, rows, items)]
    for share in RECENT_SHARES:
        popularity.append(b.recent_popularity(log, rows, items, days_of_newest(time, share)))
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
