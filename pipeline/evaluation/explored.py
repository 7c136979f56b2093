"""What the challenger would have earned on the places that the champion left to chance (exploration.py).

A row is such a place of a list that the champion in service made after both models were fitted: the reward is
whether its item was taken, `logged` the chance with which it was drawn. The challenger is asked at the same
moment, from the state of that moment, how it ranks the items that the place was drawn from, and with which
chance it would have drawn this one: so nothing is asked for that the log could not show. The difference of
the two comes from these chances (off_policy.difference, Delta-OPE); rows of one user go together.

Which items a place was drawn from, the champion is asked again. `reproduced` is the share of rows for which
it gives the chance that was logged: where it does not, nothing is answered.

A champion may draw by learned weights, which its impressions name: chances are asked with the weights of each
list, and the models are compared as both would draw plainly.

From the same lists a policy for the challenger's own draws is learned (learned.py) and told: `policy`.
Whether it is admitted, the promotion decides (admission.py).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Points, Prepared
from pipeline.data.impressions import LIST
from pipeline.documents.evaluation import Answer
from pipeline.evaluation.exploration import (
    COLUMNS,
    EXPLORED,
    FEATURES,
    PLACES,
    PLAINLY,
    POOL,
    Draws,
    described,
    worths,
)
from pipeline.evaluation.learned import Explored, learn
from pipeline.evaluation.off_policy import Estimate, answer, difference
from pipeline.models.ranking import Lister, listable

LEAST_USERS = 30
MOST_LISTS = 20_000  # the newest; each is asked of both models, some 5 ms
LEAST_REPRODUCED, CLOSE = 0.9, 0.02  # share of rows; by how much two chances of one item may differ


def compare(
    shown: pd.DataFrame,
    prepared: Prepared,
    challenger: Describing,
    champion: Describing,
    version: str,
    after: int,
    order: np.ndarray,
) -> dict[str, Any] | None:
    """None without such places. `shown`: impressions with `positive`; `version`: the champion's; `after`:
    microseconds; `order`: popularity_order, which settles ties. Raises DataError for propensities that cannot
    be."""
    lists = Lists.of(shown, prepared, version, after)
    if lists is None:
        return None
    pool, scores = lists.pools(champion, prepared, order)
    again = lists.chances(pool, lists.worths(scores, champion.live_features(lists.points, pool, [*FEATURES])))
    same = np.abs(again - lists.logged) <= CLOSE
    rated = lists.scores_of(challenger, pool)
    new, old = (lists.chances(pool, worths(each)) for each in (rated, scores))
    old = np.where(lists.plain[lists.list], lists.logged, old)
    found = difference(lists.reward, new, old, lists.logged, lists.user)
    features = challenger.live_features(lists.points, pool, list(FEATURES))
    people, reproduced = len(np.unique(lists.user)), float(same.mean())
    told: Answer = answer(found, lists.logged)
    if people < LEAST_USERS or reproduced < LEAST_REPRODUCED or (told == "not better" and not found.high < 0):
        told = "investigate"
    return {
        "answer": told,
        **_figures(found),
        "taken": float(lists.reward.mean()),
        "places": len(lists.reward),
        "users": people,
        "reproduced": reproduced,
        "policy": policy(lists.drawn(pool, rated, features, same), reproduced),
    }


def policy(log: Explored, reproduced: float) -> dict[str, Any]:
    """What was learned for the challenger's own draws; without weights where there are too few lists."""
    users = len(np.unique(log.user))
    counts = {"lists": len(log.user), "users": users}
    found = learn(log)
    if found is None:
        return {"answer": "investigate", **counts}
    told: Answer = answer(found.gain, log.logged)
    if users < LEAST_USERS or reproduced < LEAST_REPRODUCED:
        told = "investigate"
    weights = dict(zip(COLUMNS, found.weights, strict=True))
    return {"answer": told, **_figures(found.gain), **counts, "weights": weights}


def _figures(found: Estimate) -> dict[str, float]:
    return {
        "difference": float(found.value),
        "low": float(found.low),
        "high": float(found.high),
        "effective": float(found.effective),
        "unbalanced": float(found.unbalanced),
    }


@runtime_checkable
class Describing(Lister, Protocol):
    """A model that tells what it sees of any items: a Recommender."""

    def live_features(self, points: Points, items: np.ndarray, names: list[str]) -> np.ndarray:
        """(points, n, names) float32 of (points, n) items, -1 for none."""
        ...


class Lists:
    """The rows, and the lists that they stand on."""

    def __init__(self, rows: pd.DataFrame, above: pd.DataFrame, points: Points, models: np.ndarray) -> None:
        self.points = points  # of each list
        self.models = models  # (lists,) what drew its places, as its impression names it
        self.plain = models == PLAINLY
        self.list = rows["number"].to_numpy()  # of each row
        self.place = rows["place"].to_numpy()  # among the drawn places of its list, from 0
        self.item = rows["item"].to_numpy(np.int32)
        self.logged = rows["propensity"].to_numpy(float)
        self.reward = rows["positive"].to_numpy(float)
        self.user = rows[tables.USER].to_numpy(object)
        self._above = above["number"].to_numpy(), above["item"].to_numpy(np.int32)

    @classmethod
    def of(cls, shown: pd.DataFrame, prepared: Prepared, version: str, after: int) -> Lists | None:
        moment = shown[tables.TIME].astype(tables.MOMENT).astype("int64")
        own = (shown["model"] == PLAINLY) | shown["model"].str.startswith(EXPLORED)
        mine = own & (shown["version"] == version) & shown[tables.USER].notna()
        shown = shown.assign(
            moment=moment, item=prepared.catalogue.index(shown[tables.ITEM]), drawn=shown["propensity"] < 1
        )[mine & (moment > after)]
        whole = shown.groupby(LIST).agg({"drawn": "any", "item": "min", "moment": "max"})
        whole = whole[whole["drawn"] & (whole["item"] >= 0)]
        kept = whole.sort_values("moment", kind="stable").index[-MOST_LISTS:]
        shown = shown[shown[LIST].isin(kept)].sort_values([LIST, "rank"], ignore_index=True)
        if not len(shown):
            return None
        shown["number"] = pd.factorize(shown[LIST])[0]
        rows, first = shown[shown["drawn"]], shown.drop_duplicates("number")
        user = pd.Index(prepared.user_ids).get_indexer(first[tables.USER]).astype(np.int32)
        nothing = np.full(len(first), -1, np.int32)
        points = prepared.log.points(user, nothing, first["moment"].to_numpy())
        models = first["model"].to_numpy(object)
        return cls(
            rows.assign(place=rows.groupby("number").cumcount()), shown[~shown["drawn"]], points, models
        )

    def pools(self, model: Lister, prepared: Prepared, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(lists, POOL) items that the model leaves below those above, -1 behind, and their scores."""
        pools, scored, begin = [], [], 0
        for items, scores in model.candidates(self.points):
            points = self.points[begin : begin + len(items)]
            allowed = listable(items, points, prepared.catalogue) & ~self._stands_above(items, begin)
            scores = np.where(allowed, scores, -np.inf)
            best = np.lexsort((order[np.maximum(items, 0)], -scores), axis=1)[:, :POOL]
            score = np.take_along_axis(scores, best, axis=1)
            pools.append(np.where(score > -np.inf, np.take_along_axis(items, best, axis=1), -1))
            scored.append(score)
            begin += len(items)
        return np.concatenate(pools), np.concatenate(scored)

    def _stands_above(self, items: np.ndarray, begin: int) -> np.ndarray:
        """(lists, candidates) bool."""
        number, item = self._above
        size = int(max(items.max(initial=0), item.max(initial=0))) + 2
        here = (number >= begin) & (number < begin + len(items))
        cells = np.arange(len(items))[:, None] * size + items + 1
        return np.isin(cells, (number[here] - begin) * size + item[here] + 1)

    def scores_of(self, model: Lister, pool: np.ndarray) -> np.ndarray:
        """(lists, POOL) the model's scores; what it does not name stands with its lowest."""
        scored, begin = np.full(pool.shape, np.nan), 0
        for items, scores in model.candidates(self.points):
            rows = slice(begin, begin + len(items))
            for place in range(pool.shape[1]):
                same = (items == pool[rows, place : place + 1]) & (scores > -np.inf)
                there = same.any(axis=1)
                scored[rows, place] = np.where(
                    there, scores[np.arange(len(items)), same.argmax(axis=1)], np.nan
                )
            begin += len(items)
        least = np.where(np.isnan(scored), np.inf, scored).min(axis=1, keepdims=True)
        scored = np.where(np.isnan(scored), np.where(np.isfinite(least), least, 0.0), scored)
        return np.where(pool >= 0, scored, -np.inf)

    def drawn(self, pool: np.ndarray, scores: np.ndarray, features: np.ndarray, same: np.ndarray) -> Explored:
        """The lists all of whose drawn places were found again (`same`, of rows) in their pools."""
        place = np.full((len(pool), PLACES), -1)
        logged, reward = np.ones(place.shape), np.zeros(place.shape)
        there = pool[self.list] == self.item[:, None]
        fine = same & there.any(axis=1) & (self.place < PLACES)
        cells = self.list[fine], self.place[fine]
        place[cells], logged[cells], reward[cells] = (
            there[fine].argmax(axis=1),
            self.logged[fine],
            self.reward[fine],
        )
        user = np.empty(len(pool), object)
        user[self.list] = self.user
        whole = np.flatnonzero((place >= 0).all(axis=1))
        every = Explored(described(scores, features), worths(scores), place, logged, reward, user)
        return every.at(whole)

    def worths(self, scores: np.ndarray, features: np.ndarray) -> np.ndarray:
        """(lists, POOL) by what drew each list; 0 of those that do not say it."""
        found = np.zeros(scores.shape)
        for model in np.unique(self.models):
            rows, draws = self.models == model, Draws.of(str(model))
            if draws is not None:
                found[rows] = draws.worths(scores[rows], features[rows])
        return found

    def chances(self, pool: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """(rows,) with which chance each row's item is drawn; those drawn before it in its list are gone."""
        found, left = np.zeros(len(self.item)), worth.copy()
        for place in range(int(self.place.max()) + 1):
            rows = np.flatnonzero(self.place == place)
            at = self.list[rows]
            same = pool[at] == self.item[rows][:, None]
            total = left[at].sum(axis=1)
            found[rows] = (left[at] * same).sum(axis=1) / np.where(total > 0, total, 1)
            left[at] = np.where(same, 0.0, left[at])
        return found
