"""What the scorer is fitted on: of each point the item taken, the hardest candidates, a random share of the
other candidates, and a random share of all other items.

A drawn item stands for its share of those that it was drawn from (stratified sampling with importance
weights). The others together count for no more items than there are candidates: lists are made of candidates
alone, and all of a large catalogue would teach little but how a candidate differs from what is none; without
any of them a small data set teaches too little. Points whose item taken is no candidate weigh next to nothing
for the same reason: no list can answer them, and in a large catalogue most points are of that kind
(docs/log.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data.histories import Points
from pipeline.models.asked import Asked
from pipeline.models.living import LONG, SHORT
from pipeline.models.pairs import Columns, excluded_matrix, lookup
from pipeline.models.parts import Parts

HARD_BY = ("ease_5", "knn_5", "rules_5", "ials_5", "sequence_z", f"live_{SHORT}", f"live_{LONG}")
UNANSWERED = 0.01  # weight of a point whose item taken is no candidate
NOWHERE = -1e9  # log weight of a place without an item


@dataclass(frozen=True)
class Sizes:
    """Items of a point beside the one taken."""

    hard: int
    candidates: int
    others: int


@dataclass(frozen=True)
class Sample:
    """Items of many points, with features."""

    features: np.ndarray  # (points, places, features) float16
    log_weight: np.ndarray  # (points, places) float32: log of how many items it stands for; NOWHERE: none
    weight: np.ndarray  # (points,) float32, to be divided by their mean

    def __len__(self) -> int:
        return len(self.weight)

    def only(self, features: list[int]) -> Sample:
        """The same with these alone."""
        return replace(self, features=np.ascontiguousarray(self.features[:, :, features]))


def sample(
    parts: Parts,
    asked_points: list[Asked],
    names: list[str] | None,
    sizes: Sizes,
    generator: np.random.Generator,
) -> tuple[list[str], Sample]:
    """(names of the features: all by default; the sample). The item taken stands first."""
    features = log_weight = None
    begin, count = 0, sum(len(asked.points) for asked in asked_points)
    weight = np.zeros(count, np.float32)
    for asked in asked_points:
        columns, weights, retrieved = _of_chunk(parts, asked, sizes, generator)
        names = list(columns) if names is None else names
        if features is None or log_weight is None:
            shape = (count, 1 + sizes.hard + sizes.candidates + sizes.others)
            features = np.zeros((*shape, len(names)), np.float16)
            log_weight = np.full(shape, NOWHERE, np.float32)
        rows = slice(begin, begin + len(asked.points))
        for place, name in enumerate(names):
            features[rows, :, place] = columns[name]
        log_weight[rows], weight[rows] = weights, np.where(retrieved, 1, UNANSWERED)
        begin = rows.stop
    if features is None or log_weight is None or names is None:
        nothing = np.zeros((0, 1), np.float32)
        return names or [], Sample(np.zeros((0, 1, 0), np.float16), nothing, nothing[:, 0])
    return names, Sample(features, log_weight, _weight(weight, [asked.points for asked in asked_points]))


def joined(samples: list[Sample]) -> Sample:
    """One after the other, of the same features and sizes."""
    if len(samples) == 1:
        return samples[0]  # uncopied: of all the training's arrays these are the largest
    parts = ((each.features, each.log_weight, each.weight) for each in samples)
    return Sample(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _weight(weight: np.ndarray, chunks: list[Points]) -> np.ndarray:
    """Users with many points count less, though more than once: between every point and every user alike."""
    user = np.unique(np.concatenate([points.user for points in chunks]), return_inverse=True)[1]
    return (weight * np.bincount(user, weight)[user] ** -0.5).astype(np.float32)


def _of_chunk(
    parts: Parts, asked: Asked, sizes: Sizes, generator: np.random.Generator
) -> tuple[Columns, np.ndarray, np.ndarray]:
    """(columns and log weights of (points, 1 + hard + candidates + others) places, whether the item taken is
    a candidate)."""
    points, target = asked.points, asked.points.target[:, None].astype(np.int32)
    candidates = parts.candidates(asked)
    width, listed = candidates.shape[1], (candidates >= 0).sum(axis=1)
    retrieved = (candidates == target).any(axis=1)
    excluded = excluded_matrix(points, asked.items)
    others = generator.integers(asked.items, size=(len(points), sizes.others)).astype(np.int32)
    others = np.where((others == target) | (lookup(excluded, others) > 0), -1, others)
    others = np.where((others[:, :, None] == candidates[:, None]).any(axis=2), -1, others)
    # Scores are standardised over the candidates, as in a list; the others are measured by the same rule.
    columns = parts.columns(replace(asked, width=width), np.concatenate([candidates, target, others], axis=1))
    free = (candidates >= 0) & (candidates != target)
    hard = _hardest({name: column[:, :width] for name, column in columns.items()}, free, sizes.hard)
    taken_out = np.zeros((len(points), width + 1), bool)
    np.put_along_axis(taken_out, hard, values=True, axis=1)  # -1 is the place behind
    free &= ~taken_out[:, :width]
    # As many numbers as there may be candidates: with other candidates, the draws that follow are the same.
    drawn = _drawn(free, sizes.candidates, generator.random((len(points), parts.most))[:, :width])
    rest = asked.items - np.diff(excluded.indptr) - listed - ~retrieved
    weights = [
        np.zeros(target.shape),
        np.where(hard >= 0, 0, NOWHERE),
        _stands_for(drawn >= 0, free.sum(axis=1)),
        _stands_for(others >= 0, np.minimum(rest, listed)),
    ]
    behind = np.arange(width + 1, width + 1 + sizes.others)
    listed_ones = [np.maximum(places, 0) for places in (hard, drawn)]
    chosen = [np.full(target.shape, width), *listed_ones, np.broadcast_to(behind, others.shape)]
    place = np.concatenate(chosen, axis=1)
    taken = {name: np.take_along_axis(np.asarray(column), place, axis=1) for name, column in columns.items()}
    return taken, np.concatenate(weights, axis=1).astype(np.float32), retrieved


def _drawn(there: np.ndarray, count: int, chance: np.ndarray) -> np.ndarray:
    """(points, count) places of those that are there, with the least `chance`; -1: no more."""
    out = np.full((len(there), count), -1)
    kept = min(count, there.shape[1])
    if kept:
        place = np.argpartition(np.where(there, chance, 2), kept - 1, axis=1)[:, :kept]
        out[:, :kept] = np.where(np.take_along_axis(there, place, axis=1), place, -1)
    return out


def _stands_for(there: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Log of how many of a point's `number` items each of those drawn stands for; NOWHERE for none."""
    share = np.log(np.maximum(number, 1) / np.maximum(there.sum(axis=1), 1))[:, None]
    return np.where(there, share, NOWHERE)


def _hardest(columns: Columns, there: np.ndarray, count: int) -> np.ndarray:
    """(points, count) places of those that are there which the inputs together think most of; -1: no more."""
    hardness = np.zeros(there.shape, np.float32)
    for name in HARD_BY:
        if name in columns and there.any():
            hardness += columns[name] / max(1e-6, float(columns[name][there].std()))
    hardness = np.where(there, hardness, -np.inf)
    out = np.full((len(there), count), -1)
    kept = min(count, there.shape[1])
    if kept:
        place = np.argpartition(-hardness, kept - 1, axis=1)[:, :kept]
        out[:, :kept] = np.where(np.take_along_axis(hardness, place, axis=1) > -np.inf, place, -1)
    return out
