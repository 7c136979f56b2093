"""A loop whose lists leave their last places to chance, plainly or by learned weights; and which does better.

Every list explores, so that what the draws do shows as soon as it can. A place draws as the service does
(Plackett-Luce: the greatest log worth + Gumbel noise, Yellott 1977), with one noise a user, item and round,
so that two loops that draw otherwise differ in nothing else.

Rule of the answer, `learned` against `plain`: in items taken a place, mean over all rounds, paired by
replication with Student's t; `better` where the interval lies above 0 and nothing that the gate guards is
surely lost by more than long_term_verdict.USUAL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.data.histories import Points
from pipeline.documents.evaluation import Answer
from pipeline.documents.simulation import Explored
from pipeline.errors import ArtifactError
from pipeline.evaluation.exploration import COLUMNS, FEATURES, PLACES, POOL, Draws
from pipeline.evaluation.explored import Describing
from pipeline.evaluation.long_term_verdict import USUAL, verdict
from pipeline.models.ranking import rank_points
from pipeline.simulation.compare import Figures, compared, interval
from pipeline.simulation.step import Taken
from pipeline.simulation.world import World

TAKEN = "taken_a_place"


def explored(
    world: World, model: object, draws: Draws, points: Points, order: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """(points, k) items, the last PLACES of them drawn. `noise`: (points, items) Gumbel."""
    if not isinstance(model, Describing):
        raise ArtifactError(f"{type(model).__name__}: does not tell the features that places are drawn by")
    above = world.k - PLACES
    listed, scores = rank_points(model, points, world.catalogue, order, above + POOL)
    pool, score = listed[:, above:], scores[:, above:]
    score = np.where((pool >= 0) & np.isfinite(score), score, -np.inf)  # what fills a list up has none
    worth = draws.worths(score, model.live_features(points, pool, list(FEATURES)))
    with np.errstate(divide="ignore"):
        loud = np.log(worth) + np.take_along_axis(noise, np.maximum(pool, 0), axis=1)
    best = np.argsort(-loud, axis=1, kind="stable")[:, :PLACES]
    drawn = np.where(np.take_along_axis(worth, best, axis=1) > 0, np.take_along_axis(pool, best, axis=1), -1)
    return np.concatenate([listed[:, :above], drawn], axis=1).astype(np.int32)


def noise_of(world: World, seed: int, replication: int, number: int) -> np.ndarray:
    """(n, items) float32 Gumbel of a round: the same in loops that draw otherwise."""
    generator = np.random.default_rng([seed, replication, number, 11])
    shape = len(world.users), len(world.catalogue)
    return -np.log(generator.standard_exponential(shape, dtype=np.float32) + np.float32(1e-30))


def taken_a_place(listed: np.ndarray, taken: Taken) -> float:
    """Of the (n, k) lists' last PLACES, the share whose item was taken from the list."""
    places = listed[:, -PLACES:]
    hits = taken.listed & (places[taken.user] == taken.item[:, None]).any(axis=1)
    shown = int((places >= 0).sum())
    return float(hits.sum() / shown) if shown else math.nan


def answered(learned: Sequence[Figures], plain: Sequence[Figures], draws: Draws) -> Explored:
    """Both have the same replications in the same order, two at least."""
    ours, theirs = (np.array([_mean(figures) for figures in loops]) for loops in (learned, plain))
    mean, low, high, _ = interval(ours - theirs)
    measures = compared(learned, plain)
    lost = bool(measures) and not verdict(measures, USUAL)[0]
    told: Answer = "investigate"
    if low > 0 and measures and not lost:
        told = "better"
    elif high <= 0 or lost:
        told = "not better"
    return Explored(
        answer=told,
        weights=dict(zip(COLUMNS, draws.weights, strict=True)),
        learned=float(ours.mean()),
        plain=float(theirs.mean()),
        difference=mean,
        low=low,
        high=high,
        measures=measures,
    )


def _mean(figures: Figures) -> float:
    values = np.array([row[TAKEN] for row in figures])
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan
