"""What a round was like, as figures; and what two loops differ in, over replications."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp

from pipeline.models.text import unit
from pipeline.simulation.choice import closeness
from pipeline.simulation.step import State, Taken
from pipeline.simulation.world import World


def of_round(
    world: World, state: State, listed: np.ndarray, taken: Taken, here: np.ndarray, number: int
) -> dict[str, float]:
    """`listed`: (n, k) items of the users who were `here` (n,) when the round began, -1 for none."""
    lists, items = listed[here], len(world.catalogue)
    available = world.available(number)
    shown = np.bincount(lists[lists >= 0], minlength=items)
    chosen = np.bincount(taken.item, minlength=items)
    new = available & (world.enters > 0)
    vectors = unit(world.tastes.items)
    by_start = 1 - world.order / max(items - 1, 1)
    return {
        "diversity": within(lists, vectors),
        "distance": between(lists, items),
        "concentration": gini(shown[available]),
        "coverage": share(shown[available] > 0) if shown.any() else math.nan,
        "new_items": share(shown[new] > 0) if shown.any() else math.nan,
        "list_popularity": float(by_start[lists[lists >= 0]].mean()) if (lists >= 0).any() else math.nan,
        "taken_diversity": _entropy(taken, vectors, len(here)),
        "taken_novelty": share(~taken.known) if world.log.repeats else math.nan,
        "taken_concentration": top_share(chosen[available], 0.1),
        "adopted": float(taken.listed.mean()) if len(taken.item) else math.nan,
        "satisfaction": float(state.satisfaction[state.here].mean()) if state.here.any() else math.nan,
        "retention": float(state.here.mean()),
    }


def within(lists: np.ndarray, vectors: np.ndarray) -> float:
    """Mean over lists of 1 - cosine of two of its items (intra-list distance, Ziegler et al. 2005)."""
    there = lists >= 0
    listed = vectors[np.maximum(lists, 0)] * there[..., None]  # (n, k, factors)
    count = there.sum(axis=1)
    total = (listed.sum(axis=1) ** 2).sum(axis=1) - (listed**2).sum(axis=(1, 2))
    enough = count > 1
    return float(np.mean(1 - total[enough] / (count * (count - 1))[enough])) if enough.any() else math.nan


def _entropy(taken: Taken, vectors: np.ndarray, users: int) -> float:
    """Rao's quadratic entropy (1982) of each user's choices: it falls where they are alike, or repeat."""
    ones = np.ones(len(taken.item))
    cells = sp.csr_matrix((ones, (taken.user, taken.item)), shape=(users, len(vectors)))
    return 1 - closeness(cells, vectors)


def between(lists: np.ndarray, items: int) -> float:
    """1 - the share of a list that another user's has too, mean over all pairs of users."""
    n, k = lists.shape
    if n < 2 or not (lists >= 0).any():
        return math.nan
    shown = np.bincount(lists[lists >= 0], minlength=items).astype(np.float64)
    return 1 - float((shown * (shown - 1)).sum()) / (n * (n - 1) * k)


def gini(counts: np.ndarray) -> float:
    """0: all alike; 1: one has everything."""
    total, n = counts.sum(), len(counts)
    if not total:
        return math.nan
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(counts) / (n * total))


def top_share(counts: np.ndarray, tenth: float) -> float:
    """Share that the most frequent `tenth` of the items has."""
    total = counts.sum()
    most = max(1, round(tenth * len(counts)))
    return float(np.sort(counts)[::-1][:most].sum() / total) if total else math.nan


def share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else math.nan
