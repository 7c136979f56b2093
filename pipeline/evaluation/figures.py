"""Every figure of reports/evaluation.json from ranked lists: by model, by slice, and paired.

In: the test points, each model's (points, k) lists. Out: plain dictionaries (NaN where nothing was measured).
Slices: pipeline/evaluation/slices.py. All models share their bootstrap resamples. `comparison` is what the
promotion's gate reads: challenger against champion, on points that are new to both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.histories import Catalogue, Points
from pipeline.data.item_groups import Grouping, groupings
from pipeline.evaluation import fairness, metrics
from pipeline.evaluation.probe import guessed
from pipeline.evaluation.slices import COLD_ITEMS, slices

CUTOFFS = (5, 10, 20)
HEADLINE = "ndcg@10"
CHALLENGER, CHAMPION = "challenger", "champion"
SIMPLE = ("popularity", "recent_popularity")  # whom a champion must not fall behind
COMPARED = ("coverage@10", "popularity_percentile@10")

IN_ROWS = ("users", "points", HEADLINE, "recall@10")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What was asked of every model, and what the lists are measured with."""

    points: Points
    catalogue: Catalogue
    popularity: np.ndarray  # (items,) in train
    order: np.ndarray  # (items,) place in the frozen popularity order
    vectors: np.ndarray  # (items, d) unit or zero rows, for diversity
    k: int
    samples: int  # of the bootstrap
    seed: int
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)  # slice -> (users,) mask
    withheld: pd.DataFrame | None = None  # columns of items by which they are grouped, too

    @property
    def cutoffs(self) -> list[int]:
        return [k for k in CUTOFFS if k <= self.k]

    @property
    def columns(self) -> list[str]:
        return [f"{metric}@{k}" for metric in metrics.ACCURACY for k in self.cutoffs]

    @cached_property
    def groupings(self) -> dict[str, Grouping]:
        """Of the items."""
        return groupings(self.catalogue, self.popularity, self.withheld)


def accuracy_columns(question: Question, listed: np.ndarray) -> np.ndarray:
    """(points, columns) of question.columns."""
    rank = metrics.target_rank(listed, question.points.target)
    at = {k: metrics.accuracy(rank, k) for k in question.cutoffs}
    return np.stack([at[k][metric] for metric in metrics.ACCURACY for k in question.cutoffs], axis=1)


def beyond_columns(question: Question, listed: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (points,) novelty, diversity and popularity at each cut-off; NaN where there is none."""
    novelty, popular = metrics.self_information(question.popularity), metrics.percentiles(question.popularity)
    before = metrics.history_means(question.points, popular)
    diversity = metrics.list_diversity(listed, question.vectors, question.cutoffs)
    found = {}
    for place, k in enumerate(question.cutoffs):
        shown = metrics.list_means(listed[:, :k], popular)
        found[f"novelty@{k}"] = metrics.list_means(listed[:, :k], novelty)
        found[f"diversity@{k}"] = diversity[:, place]
        found[f"popularity_percentile@{k}"] = shown
        found[f"popularity_bias@{k}"] = shown - before
    return found


@dataclass(frozen=True)
class Measured:
    """Per point, what all models did."""

    question: Question
    listed: Mapping[str, np.ndarray]
    accuracy: Mapping[str, np.ndarray]  # model -> (points, columns)
    beyond: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of(cls, question: Question, listed: Mapping[str, np.ndarray]) -> Measured:
        accuracy = {name: accuracy_columns(question, lists) for name, lists in listed.items()}
        return cls(question, listed, accuracy, {n: beyond_columns(question, ls) for n, ls in listed.items()})

    @property
    def rivals(self) -> list[str]:
        """What the challenger is compared with."""
        return [name for name in self.accuracy if name != CHALLENGER] if CHALLENGER in self.accuracy else []

    def at(self, points: np.ndarray, *names: str) -> Measured:
        """The same at a mask of the points, of these models (all)."""
        kept = names or tuple(self.accuracy)
        return Measured(
            replace(self.question, points=self.question.points[points]),
            {name: self.listed[name][points] for name in kept},
            {name: self.accuracy[name][points] for name in kept},
            {name: {key: of[points] for key, of in self.beyond[name].items()} for name in kept},
        )

    def slices(self) -> dict[str, np.ndarray]:
        return slices(self.question.points, self.question.groups)

    def on(self, mask: np.ndarray) -> tuple[dict[str, Figures], dict[str, Figures]]:
        """(model -> accuracy with intervals, model -> paired difference challenger - model) of a slice."""
        columns, names = self.question.columns, list(self.accuracy)
        user = self.question.points.user[mask]
        if not len(user):
            return {name: self._nothing() for name in names}, {n: _pair(*[np.nan] * 3) for n in self.rivals}
        means = metrics.group_means(np.hstack([self.accuracy[name][mask] for name in names]), user)
        draws = metrics.user_bootstrap(means, self.question.samples, self.question.seed)
        value, (low, high) = means.mean(axis=0), metrics.interval(draws)
        width, head = len(columns), columns.index(HEADLINE)
        figures, paired = {}, {}
        for number, name in enumerate(names):
            own = slice(number * width, (number + 1) * width)
            figures[name] = {"users": len(means), "points": len(user)} | _with_ends(
                columns, value[own], low[own], high[own]
            )
            if name in self.rivals:
                ours, theirs = names.index(CHALLENGER) * width + head, number * width + head
                ends = metrics.interval((draws[:, ours] - draws[:, theirs])[:, None])
                paired[name] = _pair(value[ours] - value[theirs], ends[0][0], ends[1][0])
        return figures, paired

    def _nothing(self) -> Figures:
        nan = np.full(len(self.question.columns), np.nan)
        return {"users": 0, "points": 0} | _with_ends(self.question.columns, nan, nan, nan)

    def beside(self, name: str, mask: np.ndarray) -> Figures:
        """Coverage, novelty, diversity and popularity of one model on a slice."""
        points, listed = self.question.points, self.listed[name]
        on_offer = on_offer_at(self.question.catalogue, points.time[mask])
        found: Figures = {
            f"coverage@{k}": metrics.coverage(listed[mask, :k], on_offer) for k in self.question.cutoffs
        }
        for key, values in self.beyond[name].items():
            found[key] = metrics.mean_of_users(values[mask], points.user[mask])
        return found

    def by_items(self, mask: np.ndarray) -> tuple[dict[str, Figures], dict[str, Figures]]:
        """The ends of `on`'s headline figures when target items are redrawn instead of users."""
        names, head = list(self.accuracy), self.question.columns.index(HEADLINE)
        values = np.stack([self.accuracy[name][mask, head] for name in names], axis=1)
        points = self.question.points
        drawn = metrics.item_bootstrap(
            values, points.user[mask], points.target[mask], self.question.samples, self.question.seed
        )
        low, high = metrics.interval(drawn)
        ours = {
            n: {f"{HEADLINE}_item_low": low[i], f"{HEADLINE}_item_high": high[i]} for i, n in enumerate(names)
        }
        if not self.rivals:
            return ours, {}
        low, high = metrics.interval(drawn[:, [names.index(CHALLENGER)]] - drawn)
        paired = {n: {"item_low": low[i], "item_high": high[i]} for i, n in enumerate(names)}
        return ours, {name: paired[name] for name in self.rivals}

    def all_slices(self) -> tuple[dict[str, Figures], dict[str, Figures]]:
        """(model -> slice -> figures, model -> slice -> paired difference)."""
        models: dict[str, Figures] = {name: {} for name in self.accuracy}
        paired: dict[str, Figures] = {name: {} for name in self.rivals}
        for slice_name, mask in self.slices().items():
            figures, pairs = self.on(mask)
            item_ends, item_pairs = self.by_items(mask) if slice_name == COLD_ITEMS else ({}, {})
            for name in models:
                models[name][slice_name] = figures[name] | item_ends.get(name, {}) | self.beside(name, mask)
            for name, pair in pairs.items():
                paired[name][slice_name] = pair | item_pairs.get(name, {})
        return models, paired

    def difference(self, one: str, other: str, mask: np.ndarray, by_items: bool = False) -> Figures:
        """users, points, the two means, and one - other with its 95 % interval and standard error.

        Users are redrawn, both models by the same draws. A user counts as the square root of its points: one
        with a single point says little, and a plain mean over users, full of such, has twice the error.
        `by_items` takes the error of redrawn target items where that is the larger one.
        """
        points, head = self.question.points, self.question.columns.index(HEADLINE)
        values = np.stack([self.accuracy[name][mask, head] for name in (one, other)], axis=1)
        user, settings = points.user[mask], (self.question.samples, self.question.seed)
        if not len(user):
            nan = float("nan")
            return {"users": 0, "points": 0, one: nan, other: nan, **_pair(nan, nan, nan), "error": nan}
        means, weight = (
            metrics.group_means(values, user),
            np.sqrt(np.unique(user, return_counts=True)[1])[:, None],
        )
        drawn = metrics.user_bootstrap(np.hstack([means * weight, weight]), *settings)
        gap = (drawn[:, 0] - drawn[:, 1]) / drawn[:, 2]
        (low,), (high,) = metrics.interval(gap[:, None])
        error = float(gap.std())
        if by_items:
            redrawn = metrics.item_bootstrap(values, user, points.target[mask], *settings)
            error = max(error, float((redrawn[:, 0] - redrawn[:, 1]).std()))
        ours, theirs = (means * weight).sum(axis=0) / weight.sum()
        found = {"users": len(means), "points": len(user), one: ours, other: theirs}
        return found | _pair(ours - theirs, low, high) | {"error": error}

    def comparison(self) -> Figures:
        """Challenger against champion at these points: counts, what each lists, every slice's difference.

        `champion_over`: champion - popularity, so far as they were measured.
        """
        everywhere = np.ones(len(self.question.points), bool)
        found: Figures = {"users": len(np.unique(self.question.points.user)), "points": len(everywhere)}
        for name in (CHALLENGER, CHAMPION):
            beside = self.beside(name, everywhere)
            found[name] = {key: beside[key] for key in COMPARED if key in beside}
        found["slices"] = {
            name: self.difference(CHALLENGER, CHAMPION, mask, by_items=name == COLD_ITEMS)
            for name, mask in self.slices().items()
        }
        found["champion_over"] = {
            name: self.difference(CHAMPION, name, everywhere) for name in SIMPLE if name in self.accuracy
        }
        ours, theirs = self.headline(CHALLENGER), self.headline(CHAMPION)
        lists = self.listed[CHALLENGER], self.listed[CHAMPION]
        found["fairness"] = fairness.compare(self.question, *lists, ours - theirs, theirs)
        return found

    def headline(self, name: str) -> np.ndarray:
        """(points,) nDCG@10."""
        values: np.ndarray = self.accuracy[name][:, self.question.columns.index(HEADLINE)]
        return values

    def fairness(self, names: Sequence[str]) -> Figures:
        """Of these models, the first of which the groups of users are told of."""
        ndcg = {name: self.headline(name) for name in names}
        found = fairness.fairness(self.question, self.listed, ndcg, names)
        return found | {"guessed": guessed(self.question, self.listed[names[0]])}

    def rows(self, masks: Mapping[Any, np.ndarray], key: str) -> dict[str, list[Figures]]:
        """model -> one row per mask: its name under `key`, nDCG@10 and recall@10 with their ends."""
        table: dict[str, list[Figures]] = {name: [] for name in self.accuracy}
        for group, mask in masks.items():
            for name, figures in self.on(mask)[0].items():
                kept = {column: value for column, value in figures.items() if column.startswith(IN_ROWS)}
                table[name].append({key: group} | kept)
        return table


def on_offer_at(catalogue: Catalogue, times: np.ndarray) -> np.ndarray:
    """(items,) whether an item was available at one of the moments."""
    times = np.sort(times)
    first = np.searchsorted(times, catalogue.available_from, side="left")
    last = np.searchsorted(times, catalogue.available_until, side="left")
    return first < last


def _with_ends(columns: list[str], value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Figures:
    found: Figures = {}
    for place, column in enumerate(columns):
        found |= {column: value[place], f"{column}_low": low[place], f"{column}_high": high[place]}
    return found


def _pair(value: float, low: float, high: float) -> Figures:
    return {HEADLINE: value, "low": low, "high": high}
