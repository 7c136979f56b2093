"""A recommender that is trained in seconds: the challenger's strongest inputs under a linear softmax.

In: the log, a mask of its rows, the catalogue, un-tuned item vectors or none. Out: a scorer like any other.
Rule: inputs (EASE and iALS on the recency-weighted history, recent popularity, centred text cosine,
categories, cold flag) are fitted on the older 80 % of the rows; weights of a conditional logit (McFadden
1974) on successes among the newest 20 %; then the inputs are fitted again on all rows, which is what serves.
Of a point only the user's own history is live; everything else stands still at the end of the rows.

It stands in for fine-tuning where models are needed by the dozen: replays of policies, benchmarks of gates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pipeline.data.histories import Catalogue, Log, Points, days_of_newest
from pipeline.models import baselines as b
from pipeline.models.content import Content, VectorScorer, category_matrix
from pipeline.models.features import DISLIKED

LATER_SHARE = 0.2  # of the rows, the newest: what the weights are fitted on
POINTS_PER_USER, MOST_POINTS, FEW_POINTS = 20, 1500, 50
HARD, RANDOM = 60, 140  # candidates of a point beside what was taken
HALF_LIFE, LONG_HALF_LIFE = 5.0, 30.0  # history items
RECENT_SHARES = (0.02, 0.1)  # popularity decays by half over the newest share of the rows
REGULARISATION, MOST_ITEMS = 300.0, 6000  # of EASE
FACTORS, ITERATIONS, IALS_REGULARISATION, ALPHA = 32, 10, 20.0, 3.0
FEW_ROWS = 10  # of history: below, popularity has a weight of its own
PENALTY = 1e-3  # of squared weights, against a mean loss in nats
CHUNK = 64  # points at a time: what they need stays in the processor's cache
HARD_BY = ("ease", "recent_0.02", "ials")
FIRST = {"ease": 1.0, "recent_0.02": 0.5}  # weights to begin with


@dataclass(frozen=True)
class FastInputs:
    """What is fitted on rows; `columns` evaluates it on live histories."""

    ease: b.ItemMatrix
    ials: b.Factors
    popularity: np.ndarray  # (items, 1 + RECENT_SHARES): log1p overall, then recent, each standardised
    cold: np.ndarray  # (items,) float32: 1 for an item without rows
    text: VectorScorer | None
    categories: Content | None

    def columns(self, points: Points) -> Iterator[tuple[str, np.ndarray]]:
        """(name, (points, items) or (1, items) float32), one after another, so that few are in memory."""
        items = len(self.cold)
        liking = b.liking(points.log, DISLIKED)
        short = b.without_small(points.weights(items, HALF_LIFE, liking))
        long = b.without_small(points.weights(items, LONG_HALF_LIFE, liking))
        yield "ease", _standardised(self.ease.score(short))
        yield "ease_long", _standardised(self.ease.score(long))
        yield "ials", _standardised(self.ials.score(long))
        if self.text is not None:
            cosine = _standardised(self.text.score(short))
            yield "text", cosine
            yield "text_of_cold", cosine * self.cold
        if self.categories is not None:
            yield "categories", _standardised(self.categories.score(short))
        few = np.maximum(1 - points.lengths / FEW_ROWS, 0).astype(np.float32)[:, None]
        for place, name in enumerate(popularity_names()):
            column = self.popularity[None, :, place]
            yield name, column
            yield f"{name}_of_few", few * column
        yield "cold", self.cold[None, :]


@dataclass(frozen=True)
class FastScorer:
    name: str
    inputs: FastInputs
    weights: dict[str, float]

    def score(self, points: Points) -> np.ndarray:
        """(points, items) float32 logits; every item has one."""
        scores = np.zeros((len(points), len(self.inputs.cold)), np.float32)
        for begin in range(0, len(points), CHUNK):
            rows = slice(begin, begin + CHUNK)
            for name, column in self.inputs.columns(points[rows]):
                scores[rows] += np.float32(self.weights[name]) * column
        return scores


def fit_fast(
    log: Log, rows: np.ndarray, catalogue: Catalogue, vectors: np.ndarray | None, seed: int
) -> FastScorer:
    """Fit on the rows of a mask ((rows of the log,) bool). `vectors`: (items, d), zero rows without text.

    Too few successes among the newest rows to learn weights from: it ranks like EASE with popularity.
    """
    text = VectorScorer.of(vectors) if vectors is not None and vectors.any() else None
    matrix = category_matrix(catalogue)
    categories = Content.of(matrix) if matrix.nnz else None
    inner, later = _split(log, rows)
    inputs = _fit_inputs(log, inner, len(catalogue), text, categories, seed)
    weights = _fit_weights(inputs, _sampled(later, np.random.default_rng([seed, 1])), catalogue, seed)
    return FastScorer("fast", _fit_inputs(log, rows, len(catalogue), text, categories, seed), weights)


def popularity_names() -> list[str]:
    return ["popularity", *(f"recent_{share:g}" for share in RECENT_SHARES)]


def _split(log: Log, rows: np.ndarray) -> tuple[np.ndarray, Points]:
    """(mask of the older rows, points of the newest LATER_SHARE); equal timestamps stay together."""
    times = np.sort(log.time[rows])
    cut = times[int(len(times) * (1 - LATER_SHARE))] if len(times) else 0
    return rows & (log.time < cut), log.successes(rows & (log.time >= cut))


def _sampled(points: Points, generator: np.random.Generator) -> Points:
    """At most POINTS_PER_USER of a user and MOST_POINTS in all, at random, in the given order."""
    shuffled = generator.permutation(len(points))
    order = shuffled[np.argsort(points.user[shuffled], kind="stable")]
    user = points.user[order]
    start = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.zeros(0, np.int64)
    place = np.arange(len(user)) - np.repeat(start, np.diff(np.r_[start, len(user)]))
    kept = generator.permutation(order[place < POINTS_PER_USER])[:MOST_POINTS]
    return points[np.sort(kept)]


def _fit_inputs(
    log: Log, rows: np.ndarray, items: int, text: VectorScorer | None, categories: Content | None, seed: int
) -> FastInputs:
    met = b.interactions(log, rows, items)
    popular = [b.popularity(log, rows, items)]
    for share in RECENT_SHARES:
        popular.append(b.recent_popularity(log, rows, items, days_of_newest(log.time[rows], share)))
    return FastInputs(
        ease=b.ease(met, REGULARISATION, MOST_ITEMS),
        ials=b.ials(met, FACTORS, IALS_REGULARISATION, ALPHA, seed, ITERATIONS),
        popularity=_standardised(np.log1p(np.stack(popular))).T.astype(np.float32),
        cold=(np.bincount(log.item[rows], minlength=items) == 0).astype(np.float32),
        text=text,
        categories=categories,
    )


def _fit_weights(inputs: FastInputs, points: Points, catalogue: Catalogue, seed: int) -> dict[str, float]:
    """Weights by the log-likelihood of the item taken among its candidates, users weighted by points^-1/2."""
    names = [name for name, _ in inputs.columns(points[:1])]
    start = np.array([FIRST.get(name, 0.0) for name in names])
    if len(points) < FEW_POINTS:
        return dict(zip(names, start.tolist(), strict=True))
    generator = np.random.default_rng([seed, 2])
    chunks = [_candidates(inputs, chunk, catalogue, generator) for chunk in points.chunks(CHUNK)]
    features, offset = (np.concatenate(part) for part in zip(*chunks, strict=True))
    weight = np.bincount(points.user)[points.user] ** -0.5
    weight /= weight.sum()
    found = minimize(
        _loss, start, args=(features, offset, weight), jac=True, method="L-BFGS-B", options={"maxiter": 60}
    )
    return dict(zip(names, (float(value) for value in found.x), strict=True))


def _loss(
    weights: np.ndarray, features: np.ndarray, offset: np.ndarray, weight: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean negative log-likelihood and its gradient; the item taken is candidate 0."""
    logits = features @ weights.astype(np.float32) + offset
    logits -= logits.max(axis=1, keepdims=True)
    likely = np.exp(logits)
    total = likely.sum(axis=1, keepdims=True)
    loss = weight @ (np.log(total[:, 0]) - logits[:, 0]) + PENALTY * weights @ weights
    residual = likely / total
    residual[:, 0] -= 1
    residual *= weight[:, None]
    gradient = np.tensordot(residual.astype(np.float32), features, axes=([0, 1], [0, 1]))
    return float(loss), gradient.astype(float) + 2 * PENALTY * weights


def _candidates(
    inputs: FastInputs, points: Points, catalogue: Catalogue, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """((points, 1 + HARD + RANDOM, features), log of how many items each stands for; -1e9: none).

    First the item taken, then the hardest others by HARD_BY, then a random share of the rest, which stands
    for all of the rest (sampled softmax with importance weights).
    """
    columns = {name: column for name, column in inputs.columns(points)}
    items, each = len(catalogue), np.arange(len(points))
    allowed = (catalogue.available_from <= points.time[:, None]) & (
        points.time[:, None] < catalogue.available_until
    )
    allowed[points.excluded()] = False
    allowed[each, points.target] = False
    hardness = np.where(allowed, sum(columns[name] for name in HARD_BY), -np.inf)
    hard = np.argpartition(-hardness, min(HARD, items - 1), axis=1)[:, :HARD]
    rest = allowed.copy()
    rest[each[:, None], hard] = False
    draw = np.where(rest, generator.random(rest.shape, dtype=np.float32), 2)
    random = np.argpartition(draw, min(RANDOM, items - 1), axis=1)[:, :RANDOM]
    left = rest.sum(axis=1, keepdims=True)
    stands_for = np.log(np.maximum(left, 1) / np.maximum(np.minimum(left, RANDOM), 1))
    offset = np.concatenate(
        [
            np.zeros((len(points), 1)),
            np.where(allowed[each[:, None], hard], 0, -1e9),
            np.where(rest[each[:, None], random], stands_for, -1e9),
        ],
        axis=1,
    ).astype(np.float32)
    chosen = np.concatenate([points.target[:, None], hard, random], axis=1)
    features = [
        np.take_along_axis(np.broadcast_to(column, (len(points), items)), chosen, axis=1)
        for column in columns.values()
    ]
    return np.stack(features, axis=2), offset


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Each row minus its mean, over its deviation; NaN (cannot score) and constant rows become 0."""
    known = ~np.isnan(scores)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, scores, 0).astype(np.float32)
    centred -= (centred.sum(axis=1, keepdims=True, dtype=np.float64) / count).astype(np.float32)
    centred *= known
    deviation = np.sqrt(np.einsum("ij,ij->i", centred, centred)[:, None] / count)
    centred /= np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
    return centred
