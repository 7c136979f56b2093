"""What the scorer is fitted on: of each point the item taken, the hardest candidates, a random share of all
other items.

Each random item stands for as many as it was drawn from, so the softmax over the sample estimates the one
over the whole catalogue (sampled softmax with importance weights), though lists are made of candidates
alone: so items that no retriever brought count as taken, too, and teach the same weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data.histories import Points
from pipeline.models.asked import Asked
from pipeline.models.pairs import Columns, excluded_matrix, lookup
from pipeline.models.parts import Parts

HARD_BY = ("ease_5", "knn_5", "rules_5", "ials_5", "sequence_z", "live_1", "live_3")
NOWHERE = -1e9  # log weight of a place without an item


@dataclass(frozen=True)
class Sizes:
    """Items of a point beside the one taken."""

    hard: int
    random: int


@dataclass(frozen=True)
class Sample:
    """Items of many points, with features."""

    features: np.ndarray  # (points, places, features) float16
    log_weight: np.ndarray  # (points, places) float32: log of how many items it stands for; NOWHERE: none
    weight: np.ndarray  # (points,) float32, mean 1

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
    for asked in asked_points:
        columns, weights = _of_chunk(parts, asked, sizes, generator)
        names = list(columns) if names is None else names
        if features is None or log_weight is None:
            shape = (count, 1 + sizes.hard + sizes.random)
            features = np.zeros((*shape, len(names)), np.float16)
            log_weight = np.full(shape, NOWHERE, np.float32)
        rows = slice(begin, begin + len(asked.points))
        for place, name in enumerate(names):
            features[rows, :, place] = columns[name]
        log_weight[rows] = weights
        begin = rows.stop
    if features is None or log_weight is None or names is None:
        nothing = np.zeros((0, 1), np.float32)
        return names or [], Sample(np.zeros((0, 1, 0), np.float16), nothing, nothing[:, 0])
    return names, Sample(features, log_weight, _weight([asked.points for asked in asked_points]))


def joined(samples: list[Sample]) -> Sample:
    """One after the other, of the same features and sizes."""
    if len(samples) == 1:
        return samples[0]  # uncopied: of all the training's arrays these are the largest
    parts = ((each.features, each.log_weight, each.weight) for each in samples)
    return Sample(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _weight(chunks: list[Points]) -> np.ndarray:
    """Users with many points count less, though more than once: between every point and every user alike."""
    user = np.concatenate([points.user for points in chunks])
    _, place, count = np.unique(user, return_inverse=True, return_counts=True)
    weight = count[place] ** -0.5
    return (weight / weight.mean()).astype(np.float32)


def _of_chunk(
    parts: Parts, asked: Asked, sizes: Sizes, generator: np.random.Generator
) -> tuple[Columns, np.ndarray]:
    """Columns and log weights of (points, 1 + hard + random) places."""
    points, target = asked.points, asked.points.target[:, None].astype(np.int32)
    candidates = parts.candidates(asked)
    width = candidates.shape[1]
    random = generator.integers(asked.items, size=(len(points), sizes.random)).astype(np.int32)
    excluded = excluded_matrix(points, asked.items)
    random = np.where((random == target) | (lookup(excluded, random) > 0), -1, random)
    # Scores are standardised over the candidates, as in a list; the others are measured by the same rule.
    columns = parts.columns(replace(asked, width=width), np.concatenate([candidates, target, random], axis=1))
    hard = _hardest(
        {name: column[:, :width] for name, column in columns.items()}, candidates, target, sizes.hard
    )
    hard_items = np.where(hard >= 0, np.take_along_axis(candidates, np.maximum(hard, 0), axis=1), -1)
    there = (random >= 0) & ~(random[:, :, None] == hard_items[:, None, :]).any(axis=2)
    # What the random ones stand for: every item but those excluded, the hard ones and the one taken.
    rest = asked.items - np.diff(excluded.indptr) - (hard_items >= 0).sum(axis=1) - 1
    stands_for = np.log(np.maximum(rest, 1) / np.maximum(there.sum(axis=1), 1))[:, None]
    weights = [
        np.zeros(target.shape),
        np.where(hard_items >= 0, 0, NOWHERE),
        np.where(there, stands_for, NOWHERE),
    ]
    behind = np.arange(width + 1, width + 1 + sizes.random)
    chosen = [np.full(target.shape, width), np.maximum(hard, 0), np.broadcast_to(behind, random.shape)]
    place = np.concatenate(chosen, axis=1)
    taken = {name: np.take_along_axis(np.asarray(column), place, axis=1) for name, column in columns.items()}
    return taken, np.concatenate(weights, axis=1).astype(np.float32)


def _hardest(columns: Columns, candidates: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """(points, count) places of the candidates that the inputs together think most of; -1: no more."""
    there = (candidates >= 0) & (candidates != target)
    hardness = np.zeros(candidates.shape, np.float32)
    for name in HARD_BY:
        if name in columns and there.any():
            hardness += columns[name] / max(1e-6, float(columns[name][there].std()))
    hardness = np.where(there, hardness, -np.inf)
    out = np.full((len(candidates), count), -1)
    kept = min(count, candidates.shape[1])
    if kept:
        place = np.argpartition(-hardness, kept - 1, axis=1)[:, :kept]
        out[:, :kept] = np.where(np.take_along_axis(hardness, place, axis=1) > -np.inf, place, -1)
    return out
