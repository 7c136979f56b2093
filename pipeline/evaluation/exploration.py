"""The last places of a list, drawn by chance: what no list shows nobody can learn about.

Each place draws one of the best items that the places above have left, the pool, without putting it back,
with a chance in proportion to exp(z / 2): z is the item's score in standard deviations of the pool's
(Plackett-Luce). Scores of any scale give chances of one kind: of twenty normal ones the best has about a
ninth, the worst a fiftieth. What is logged is the chance of the item drawn, given what stands above it.
"""

from __future__ import annotations

import numpy as np

PLACES, POOL = 2, 20
SHARPNESS = 0.5  # flatter costs a list more, steeper gives logs that say little of another model
LEAST_K = 4  # shorter lists are left as they are


def worths(scores: np.ndarray) -> np.ndarray:
    """(..., pool) float64 exp(z / 2) of scores; 0 for those of -inf, which are no items."""
    there = np.isfinite(scores)
    count = np.maximum(there.sum(axis=-1, keepdims=True), 1)
    known = np.where(there, scores, 0.0).astype(np.float64)
    apart = np.where(there, known - known.sum(axis=-1, keepdims=True) / count, 0.0)
    spread = np.sqrt((apart**2).sum(axis=-1, keepdims=True) / count)
    return np.where(there, np.exp(SHARPNESS * apart / np.where(spread > 0, spread, 1.0)), 0.0)


def drawn(scores: np.ndarray, chance: np.random.Generator) -> tuple[list[int], list[float]]:
    """(rows, propensities) of PLACES of the (pool,) scores, at most as many as there are."""
    left = worths(scores)
    rows, propensities = [], []
    for _ in range(min(PLACES, int((left > 0).sum()))):
        chances = left / left.sum()
        row = int(chance.choice(len(left), p=chances))
        rows.append(row)
        propensities.append(float(chances[row]))
        left[row] = 0.0
    return rows, propensities
