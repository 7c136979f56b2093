"""What a floor under a group's exposure would cost: the challenger's lists re-ranked, and measured again.

A row for recommend.exposure_floors as they are set, then one for each way to group items: its most
under-shown group, by its share of what users took less its share of attention, with the former as the floor.
nDCG@10 re-ranked - as ranked, its 95 % interval by redrawing users, paired; at MOST points, evenly chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluation import metrics
from pipeline.evaluation.fairness import ATTENTION, DEPTH
from pipeline.models.floors import POOL, Floors, members, picked, reranked
from pipeline.models.ranking import Model, rank_points

if TYPE_CHECKING:
    from pipeline.data.item_groups import Grouping
    from pipeline.evaluation.figures import Question

MOST = 1_000  # points, whose lists are made again, longer: some 5 ms each
LEAST_GAP = 0.005  # of attention: a smaller one is none


def prices(question: Question, challenger: Model, floors: Floors) -> list[dict[str, Any]]:
    """`floors`: those that are set."""
    points = question.points[:: max(1, -(-len(question.points) // MOST))]
    question = replace(question, points=points)
    pool = rank_points(challenger, points, question.catalogue, question.order, POOL)[0]
    rows = [_row(question, pool, floors, "as set")] if floors else []
    return rows + [_row(question, pool, one, None) for one in _under_shown(question, pool[:, :DEPTH])]


def _under_shown(question: Question, listed: np.ndarray) -> Iterator[Floors]:
    for by, grouping in question.groupings.items():
        taken = _shares(question, grouping, question.points.target[:, None])
        gap = np.nan_to_num(taken - _shares(question, grouping, listed))
        worst = int(gap.argmax())
        if gap[worst] > LEAST_GAP:
            yield {by: {grouping.names[worst]: float(taken[worst])}}


def _shares(question: Question, grouping: Grouping, listed: np.ndarray) -> np.ndarray:
    """(groups,) share of the attention, mean over users."""
    values = grouping.exposure(listed, ATTENTION[: listed.shape[1]])
    known = np.isfinite(values[:, 0])
    if not known.any():
        return np.full(values.shape[1], np.nan)
    return np.asarray(metrics.group_means(values[known], question.points.user[known]).mean(axis=0))


def _row(question: Question, pool: np.ndarray, floors: Floors, name: str | None) -> dict[str, Any]:
    points, before = question.points, pool[:, :DEPTH]
    after = picked(pool, reranked(pool, *members(floors, question.groupings), DEPTH), -1)
    values = [
        metrics.discounted(metrics.target_rank(lists, points.target), DEPTH) for lists in (after, before)
    ]
    means = metrics.group_means(values[0] - values[1], points.user)
    low, high = metrics.interval(metrics.user_bootstrap(means[:, None], question.samples, question.seed))
    groups = [(by, group) for by, of in floors.items() for group in of]
    by, group = groups[0]
    at, grouping = question.groupings[by].names.index(group), question.groupings[by]
    told = ", ".join(f"{by}: {group}" for by, group in groups)
    return {
        "floor": f"{told} ({name})" if name else told,
        "least": floors[by][group],
        "before": _shares(question, grouping, before)[at],
        "after": _shares(question, grouping, after)[at],
        "ndcg@10": means.mean(),
        "low": low[0],
        "high": high[0],
    }
