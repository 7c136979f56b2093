"""Every figure of reports/evaluation.json from ranked lists: by model, by slice, and paired.

In: the test points, each model's (points, k) lists. Out: plain dictionaries (NaN where nothing was measured).
Slices: cold_items - target never in train; cold_users - user never in train; warm - neither;
empty_history - nothing known of the user at that moment; group:COLUMN=VALUE - so says the table of users.
All models share their bootstrap resamples. `comparison` is what the promotion's gate reads: challenger
against champion, on points that are new to both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline import metrics as m
from pipeline import tables as t
from pipeline.histories import TRAIN, Catalogue, Log, Points

CUTOFFS = (5, 10, 20)
HEADLINE = "ndcg@10"
CHALLENGER, CHAMPION, COLD_ITEMS = "challenger", "champion", "cold_items"
SIMPLE = ("popularity", "recent_popularity")  # whom a champion must not fall behind
GROUP_VALUES = range(2, 13)  # values of a column whose users are slices
GROUP_USERS = 20  # least test users of such a slice
COMPARED = ("coverage@10", "popularity_percentile@10")
BUCKETS = {"0": 0, "1-4": 1, "5-19": 5, "20-99": 20, "100+": 100}  # history length: from
NEW = "new"

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

    @property
    def cutoffs(self) -> list[int]:
        return [k for k in CUTOFFS if k <= self.k]

    @property
    def columns(self) -> list[str]:
        return [f"{metric}@{k}" for metric in m.ACCURACY for k in self.cutoffs]


def user_groups(users: pd.DataFrame | None, user_ids: np.ndarray, points: Points) -> dict[str, np.ndarray]:
    """`group:COLUMN=VALUE` -> (users,) mask, from a table with user_id and any further columns.

    Of columns with as many values as GROUP_VALUES among the points' users; of values, those of at least
    GROUP_USERS of them. Empty cells are in no group.
    """
    if users is None:
        return {}
    table = users.set_index(t.USER).reindex(pd.Index(user_ids))
    asked = np.unique(points.user[points.user >= 0])
    found = {}
    for column in table.columns:
        values = table[column]
        known = values.iloc[asked].dropna()
        if not known.map(lambda value: isinstance(value, str | int | float | bool | np.generic)).all():
            continue  # lists and the like
        if known.nunique() not in GROUP_VALUES:
            continue
        for value, count in known.value_counts().sort_index().items():
            if count >= GROUP_USERS:
                # A gap among whole numbers makes them floats: 1.0 is written as 1.
                text = f"{value:g}" if isinstance(value, float) else value
                found[f"group:{column}={text}"] = (values == value).fillna(False).to_numpy(dtype=bool)
    return found


def slices(points: Points, groups: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Name -> (points,) mask."""
    log = points.log
    known_items, known_users = _in_train(log, log.item), _in_train(log, log.user)
    cold_item = ~np.isin(points.target, known_items)
    cold_user = ~np.isin(points.user, known_users)
    return {
        "all": np.ones(len(points), bool),
        "warm": ~cold_item & ~cold_user,
        COLD_ITEMS: cold_item,
        "cold_users": cold_user,
        "empty_history": points.lengths == 0,
        **{name: (points.user >= 0) & users[points.user] for name, users in (groups or {}).items()},
    }


def _in_train(log: Log, column: np.ndarray) -> np.ndarray:
    return np.unique(column[log.window == TRAIN])


def by_history_length(points: Points) -> dict[str, np.ndarray]:
    """Bucket -> (points,) mask, by rows in the history at the point."""
    bucket = np.searchsorted(list(BUCKETS.values()), points.lengths, side="right") - 1
    return {name: bucket == number for number, name in enumerate(BUCKETS)}


def by_popularity_decile(points: Points, order: np.ndarray) -> dict[str | int, np.ndarray]:
    """Decile -> (points,) mask: tenths of the items met in train by popularity, 10 the most popular.

    Targets never in train are under `new`.
    """
    known = _in_train(points.log, points.log.item)
    decile = np.zeros(len(order), np.int64)  # 0: new
    decile[known[np.argsort(-order[known])]] = 1 + 10 * np.arange(len(known)) // max(len(known), 1)
    found = decile[points.target]
    return {NEW if number == 0 else number: found == number for number in range(11)}


def accuracy_columns(question: Question, listed: np.ndarray) -> np.ndarray:
    """(points, columns) of question.columns."""
    rank = m.target_rank(listed, question.points.target)
    at = {k: m.accuracy(rank, k) for k in question.cutoffs}
    return np.stack([at[k][metric] for metric in m.ACCURACY for k in question.cutoffs], axis=1)


def beyond_columns(question: Question, listed: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (points,) novelty, diversity and popularity at each cut-off; NaN where there is none."""
    novelty, popular = m.self_information(question.popularity), m.percentiles(question.popularity)
    before = m.history_means(question.points, popular)
    diversity = m.list_diversity(listed, question.vectors, question.cutoffs)
    found = {}
    for place, k in enumerate(question.cutoffs):
        shown = m.list_means(listed[:, :k], popular)
        found[f"novelty@{k}"] = m.list_means(listed[:, :k], novelty)
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
        means = m.group_means(np.hstack([self.accuracy[name][mask] for name in names]), user)
        draws = m.user_bootstrap(means, self.question.samples, self.question.seed)
        value, (low, high) = means.mean(axis=0), m.interval(draws)
        width, head = len(columns), columns.index(HEADLINE)
        figures, paired = {}, {}
        for number, name in enumerate(names):
            own = slice(number * width, (number + 1) * width)
            figures[name] = {"users": len(means), "points": len(user)} | _with_ends(
                columns, value[own], low[own], high[own]
            )
            if name in self.rivals:
                ours, theirs = names.index(CHALLENGER) * width + head, number * width + head
                ends = m.interval((draws[:, ours] - draws[:, theirs])[:, None])
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
            f"coverage@{k}": m.coverage(listed[mask, :k], on_offer) for k in self.question.cutoffs
        }
        for key, values in self.beyond[name].items():
            found[key] = m.mean_of_users(values[mask], points.user[mask])
        return found

    def by_items(self, mask: np.ndarray) -> tuple[dict[str, Figures], dict[str, Figures]]:
        """The ends of `on`'s headline figures when target items are redrawn instead of users."""
        names, head = list(self.accuracy), self.question.columns.index(HEADLINE)
        values = np.stack([self.accuracy[name][mask, head] for name in names], axis=1)
        points = self.question.points
        drawn = m.item_bootstrap(
            values, points.user[mask], points.target[mask], self.question.samples, self.question.seed
        )
        low, high = m.interval(drawn)
        ours = {
            n: {f"{HEADLINE}_item_low": low[i], f"{HEADLINE}_item_high": high[i]} for i, n in enumerate(names)
        }
        if not self.rivals:
            return ours, {}
        low, high = m.interval(drawn[:, [names.index(CHALLENGER)]] - drawn)
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
        means, weight = m.group_means(values, user), np.sqrt(np.unique(user, return_counts=True)[1])[:, None]
        drawn = m.user_bootstrap(np.hstack([means * weight, weight]), *settings)
        gap = (drawn[:, 0] - drawn[:, 1]) / drawn[:, 2]
        (low,), (high,) = m.interval(gap[:, None])
        error = float(gap.std())
        if by_items:
            redrawn = m.item_bootstrap(values, user, points.target[mask], *settings)
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
        return found

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
