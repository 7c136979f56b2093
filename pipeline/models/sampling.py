"""What a scorer is fitted on: of each point the item taken, the hardest others, a random share of the rest.

Each random candidate stands for as many items as it was drawn from, so the softmax over the sample estimates
the one over the whole catalogue (sampled softmax with importance weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.data.histories import Points
from pipeline.models.features import Asked, Columns, Inputs

CHUNK = 64  # points whose features are in memory at a time
HARD_BY = ("ease_5", "knn_5", "sequence_z", "text_5", "popularity_0.05", "categories_5")
COLD_HARD_BY = ("imputed_ease", "imputed_ials", "text_5", "imputed_popularity")
FOLDS = 5
FEWEST = 5  # rows of train without which an item is not hidden: those are nearly newcomers as they are


@dataclass(frozen=True)
class Candidates:
    """Sampled candidates of many points."""

    features: np.ndarray  # (points, candidates, features) float16
    log_weight: np.ndarray  # (points, candidates) float32: log of how many items a candidate stands for
    target: np.ndarray  # (points,) int64 position of the item taken
    weight: np.ndarray  # (points,) float32, mean 1


@dataclass(frozen=True)
class Sizes:
    """Candidates of a point. `hard_cold`: of the hard, never in train, by what their text lets expect."""

    hard: int
    random: int
    hard_cold: int = 0


def each(variants: Mapping[str, Inputs], points: Points) -> Iterator[tuple[str, Columns]]:
    """The features of each variant of one fit; those that they share are computed once."""
    any_inputs = next(iter(variants.values()))
    asked = Asked.of(points, any_inputs.items)
    shared = any_inputs.shared(asked)
    for name, inputs in variants.items():
        yield name, shared | inputs.own(asked, shared)


def samples(
    variants: Mapping[str, Inputs], points: Points, generator: np.random.Generator, sizes: Sizes
) -> dict[str, Candidates]:
    """One sample for each variant, of the same candidates where these are random."""
    found: dict[str, Candidates] = {}
    _fill(found, variants, points, np.arange(len(points)), generator, sizes)
    return found


def hidden_samples(
    variants: Mapping[str, Inputs],
    points: Points,
    generator: np.random.Generator,
    sizes: Sizes,
    share: float,
) -> dict[str, Candidates]:
    """The same as if train lacked a share of its items; each of FOLDS groups of points misses its own."""
    found: dict[str, Candidates] = {}
    group = generator.integers(FOLDS, size=len(points))
    count = next(iter(variants.values())).statistics.count
    for fold, mask in enumerate(hidden_items(count, share, generator)):
        blind = {name: inputs.hide(mask) for name, inputs in variants.items()}
        _fill(found, blind, points, np.flatnonzero(group == fold), generator, sizes)
    return found


def hidden_items(count: np.ndarray, share: float, generator: np.random.Generator) -> list[np.ndarray]:
    """FOLDS (items,) masks of a share of the items met FEWEST times or more; disjoint up to 1 / FOLDS."""
    known = generator.permutation(np.flatnonzero(count >= FEWEST))
    masks = []
    for fold in range(FOLDS):
        start = fold * len(known) // FOLDS
        mask = np.zeros(len(count), bool)
        mask[np.roll(known, -start)[: round(share * len(known))]] = True
        masks.append(mask)
    return masks


def _fill(
    found: dict[str, Candidates],
    variants: Mapping[str, Inputs],
    points: Points,
    mine: np.ndarray,
    generator: np.random.Generator,
    sizes: Sizes,
) -> None:
    """The candidates of the points `mine`, into whole arrays: joining parts would need twice the memory."""
    items = next(iter(variants.values())).items
    for begin in range(0, len(mine), CHUNK):
        rows = mine[begin : begin + CHUNK]
        draw = generator.random((len(rows), items), dtype=np.float32)
        for name, columns in each(variants, points[rows]):
            parts = _of_chunk(columns, points[rows], draw, sizes)
            if name not in found:
                whole = [np.empty((len(points), *part.shape[1:]), part.dtype) for part in parts]
                found[name] = Candidates(whole[0], whole[1], whole[2], _weight(points))
            made = found[name]
            made.features[rows], made.log_weight[rows], made.target[rows] = parts


def _weight(points: Points) -> np.ndarray:
    """Users with many points count less, though more than once: between every point and every user alike."""
    weight = np.bincount(points.user)[points.user] ** -0.5
    return (weight / weight.mean()).astype(np.float32)


def _hardness(columns: Columns, seen: np.ndarray, target: np.ndarray, hard_cold: int) -> np.ndarray:
    """(points, items): first the target, then the `hard_cold` likeliest newcomers, then by a mixture."""
    row = np.arange(len(seen))
    hardness = sum(columns[name] for name in HARD_BY if name in columns)
    hardness = np.where(seen, -np.inf, hardness)
    if hard_cold:
        likely = sum(columns[name] for name in COLD_HARD_BY)
        likely = np.where((columns["cold"] > 0) & ~seen, likely, -np.inf)
        first = np.argpartition(-likely, hard_cold - 1, axis=1)[:, :hard_cold]
        there = np.take_along_axis(likely, first, axis=1) > -np.inf
        hardness[row[:, None], first] = np.where(there, 1e9, hardness[row[:, None], first])
    hardness[row, target] = np.inf
    return hardness


def _of_chunk(
    columns: Columns, points: Points, draw: np.ndarray, sizes: Sizes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points, candidates, features) float16; of each candidate the log weight; place of the target."""
    items = draw.shape[1]
    row = np.arange(len(points))[:, None]
    seen = np.zeros((len(points), items), bool)
    seen[points.excluded()] = True
    hardness = _hardness(columns, seen, points.target, min(sizes.hard_cold, items))
    hard_count = min(sizes.hard, items)
    hard = np.argpartition(-hardness, hard_count - 1, axis=1)[:, :hard_count]
    rest = ~seen
    rest[row, hard] = False
    random_count = min(sizes.random, items - hard_count)
    draw = np.where(rest, draw, 2)
    random = np.argpartition(draw, max(random_count - 1, 0), axis=1)[:, :random_count]
    left = rest.sum(axis=1, keepdims=True)
    drawn = np.minimum(left, random_count)
    stands_for = np.log(np.maximum(left, 1) / np.maximum(drawn, 1))
    chosen = np.concatenate([hard, random], axis=1)
    log_weight = np.concatenate(
        [np.zeros(hard.shape), np.where(rest[row, random], stands_for, -1e9)], axis=1
    ).astype(np.float32)
    log_weight[seen[row, chosen]] = -1e9
    log_weight[chosen == points.target[:, None]] = 0
    target = (chosen == points.target[:, None]).argmax(axis=1)
    features = np.empty((*chosen.shape, len(columns)), np.float16)
    for place, column in enumerate(columns.values()):
        features[..., place] = np.broadcast_to(column, draw.shape)[row, chosen]
    return features, log_weight, target
