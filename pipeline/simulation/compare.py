"""What two loops differ in at the end, over replications that meet the same chance.

A measure is a loop's mean over the second half of its rounds; a difference is paired by replication, with
Student's t. What is lost is put beside what it is a share of: the champion's figure, the room that its
concentration leaves, or one deviation of utility.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from pipeline.documents.simulation import Curve, Lost
from pipeline.evaluation.metrics import holm

Figures = Sequence[Mapping[str, float]]  # one mapping a round
HIGHER = ("diversity", "distance", "new_items", "satisfaction", "retention")
JUDGED = ("diversity", "distance", "concentration", "new_items", "satisfaction", "retention")
LEAST = 1e-12


def late(figures: Figures, name: str) -> float:
    """Mean over the second half of the rounds."""
    values = np.array([row[name] for row in figures[len(figures) // 2 :]])
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def compared(challenger: Sequence[Figures], champion: Sequence[Figures]) -> list[Lost]:
    """Of each judged measure; both have the same replications in the same order, two at least."""
    rows = []
    for name in JUDGED:
        ours = np.array([late(figures, name) for figures in challenger])
        theirs = np.array([late(figures, name) for figures in champion])
        if np.isnan(ours).any() or np.isnan(theirs).any():
            continue  # e.g. no item is new
        rows.append(_lost(name, ours, theirs))
    adjusted = holm({row.name: 1.0 if row.p is None else row.p for row in rows})
    return [row.but(p=adjusted[row.name]) for row in rows]


def _lost(name: str, ours: np.ndarray, theirs: np.ndarray) -> Lost:
    gap = theirs - ours if name in HIGHER else ours - theirs
    mean, low, high, error = interval(gap)
    base = float(theirs.mean())
    scale = {"concentration": 1 - base, "satisfaction": 1.0}.get(name, base)
    # Coarse measures may differ alike in all replications: no spread is no certainty, so the signs count.
    signs = 0.5 ** len(gap) if mean > LEAST else 1.0
    p = float(student.sf(mean / error, len(gap) - 1)) if error > LEAST else signs
    return Lost(
        name=name,
        challenger=float(ours.mean()),
        champion=base,
        lost=mean,
        low=low,
        high=high,
        share=mean / scale if scale > LEAST else None,
        p=p,
    )


def interval(values: np.ndarray) -> tuple[float, float, float, float]:
    """(mean, lower, upper end of the 95 % interval, standard error) by Student's t; NaN ends of one value."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, math.nan, math.nan, math.nan
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    width = float(student.ppf(0.975, len(values) - 1)) * error
    return mean, mean - width, mean + width, error


def curves(replications: Sequence[Figures]) -> dict[str, Curve]:
    """Measure -> its course."""
    found = {}
    for name in replications[0][0]:
        table = np.array([[row[name] for row in figures] for figures in replications])
        ends = [interval(column) for column in table.T]
        found[name] = Curve(
            mean=[end[0] for end in ends], low=[end[1] for end in ends], high=[end[2] for end in ends]
        )
    return found
