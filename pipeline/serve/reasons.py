"""Why an item is listed: parts of its score, in words filled with facts.

The scorer's linear part is a sum over features; a kind's weight is what its features add to the item's score
above the mean candidate's, exactly. What the MLP adds on top is no kind's. A reason is given only for a kind
that raises the item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.data.histories import MICROSECONDS_A_DAY, Points
from pipeline.models.asked import Asked
from pipeline.models.living import Living
from pipeline.models.modalities import alike
from pipeline.models.recommender import Recommender
from pipeline.serve.messages import Reason
from pipeline.serve.state import Present

Told = tuple[str, int | None] | None

KINDS = {
    "history": ("ease", "knn", "rules", "ials", "folded", "neighbours", "imputed", "sequence", "repeat"),
    "text": ("text",),
    "graph": ("graph",),
    "keywords": ("keywords",),
    "modality": ("vector",),
    "category": ("categories", "year", "release"),
    "popular": ("live", "train_count", "item_value", "item_liked", "item_"),
    "new": ("cold", "live_new", "live_age"),
}
MOST = 3  # reasons of an item
READ, VERY_NEWEST = 50, 10  # newest rows of a history whose texts, and whose categories, are compared
SPANS = ((1, "the last day"), (7, "the last week"), (30, "the last month"))


def kind_of(feature: str) -> str:
    """The one with the longest beginning of the feature's name; `model` for what says nothing to a reader."""
    found = [
        (len(start), kind) for kind, starts in KINDS.items() for start in starts if feature.startswith(start)
    ]
    return max(found)[1] if found else "model"


class Linear:
    """The linear part of a scorer, by kinds of reasons."""

    def __init__(self, model: Recommender) -> None:
        self.weight = model.scorer.linear
        of_feature = np.array([kind_of(name) for name in model.card["features"]])
        kinds = np.unique(of_feature)
        self.names = kinds.tolist()
        self.member = (of_feature[:, None] == kinds).astype(np.float32)  # (features, kinds)

    def added(self, inputs: np.ndarray, listed: np.ndarray) -> list[list[tuple[str, float]]]:
        """(listed, kinds) each kind and what it adds, the most first. `inputs`: (candidates, features) of the
        scorer; `listed`: rows of it."""
        parts = (self.weight * (inputs[listed] - inputs.mean(axis=0))) @ self.member
        order = np.argsort(-parts, axis=1, kind="stable")
        return [
            [(self.names[place], added[place]) for place in places]
            for places, added in zip(order.tolist(), parts.tolist(), strict=True)
        ]


def _newest(points: Points, rows: int) -> np.ndarray:
    """Different items among the newest rows of the one point's history."""
    start, stop = int(points.start[0]), int(points.stop[0])
    items = np.unique(points.log.item[max(start, stop - rows) : stop])
    return items[items >= 0]


@dataclass(frozen=True)
class Place:
    """A listed item and whom it is listed for."""

    item: int
    now: int
    newest: np.ndarray  # different items among the newest rows of the history
    near: int  # of these the one whose text is nearest; -1: none is near
    kinds: frozenset[str]  # categories of the very newest
    owed: int  # the history item that the item owes most; -1: none
    count: int  # rows of the item before the moment
    first: int  # microseconds of the first of them
    lately: list[int]  # of its last takers, how many in each of SPANS


class Explainer:
    """Facts of one catalogue, gathered once."""

    def __init__(self, model: Recommender, present: Present) -> None:
        self.model, self.present = model, present
        self.titles, self.ids = model._titles, model.catalogue.ids
        same: dict[frozenset[str], frozenset[str]] = {}  # many items share theirs
        self.categories = [same.setdefault(each, each) for each in model._categories]
        del model.__dict__["_categories"]
        self._linear = Linear(model)

    def reasons(
        self, asked: Asked, inputs: np.ndarray, items: np.ndarray, listed: np.ndarray, living: Living
    ) -> list[list[Reason]]:
        """Of the rows `listed` among the one point's candidates `items`.

        `inputs`: (candidates, features) of the scorer; `living`: the state of
        the point's moment, which is now or earlier.
        """
        if not len(listed):
            return []
        points, top = asked.points, items[listed]
        now, state = int(points.time[0]), living.live.at(top, points.time)
        owed = self.model.parts.collaborative.owed(asked, 0, top)
        newest = _newest(points, READ)
        kinds = frozenset().union(*(self.categories[item] for item in _newest(points, VERY_NEWEST)))
        facts = (top, self._nearest(newest, top), owed, state.count, state.first, self._lately(top, now))
        found = []
        rows = zip(*map(np.ndarray.tolist, facts), strict=True)
        for added, row in zip(self._linear.added(inputs, listed), rows, strict=True):
            item, near, owes, count, first, lately = row
            place = Place(item, now, newest, near, kinds, owes, count, first, lately)
            found.append(self._of_item(place, added))
        return found

    def _nearest(self, newest: np.ndarray, top: np.ndarray) -> np.ndarray:
        """(n,) of each item of `top` the one of `newest` whose text is nearest; -1: none is near."""
        if self.model.text is None or not len(newest):
            return np.full(len(top), -1)
        close = self.model.text[newest] @ self.model.text[top].T
        return np.where(close.max(axis=0) > 0, newest[close.argmax(axis=0)], -1)

    def _lately(self, top: np.ndarray, now: int) -> np.ndarray:
        """(n, spans) how many of each item's last takers took it in each of SPANS."""
        ago = now - self.present.takers.time[top]  # of nobody: far beyond, or below 0
        spans = np.array([days * MICROSECONDS_A_DAY for days, _ in SPANS])
        return ((ago > 0)[:, :, None] & (ago[:, :, None] < spans)).sum(axis=1)

    def _of_item(self, place: Place, added: list[tuple[str, float]]) -> list[Reason]:
        found: list[Reason] = []
        for kind, weight in added:
            if weight <= 0 or len(found) == MOST:
                break
            # By name: a table of bound methods is a cycle, which memory leaves only by a collection.
            told = getattr(self, f"_{kind}")(place) if kind in KINDS else None
            if told is not None:
                text, near = told
                item_id = None if near is None else str(self.ids[near])
                found.append(Reason(kind=kind, text=text, weight=round(weight, 4), item_id=item_id))
        if not found:
            best = added[0][1] if added else 0.0
            found = [Reason(kind="model", text="fits what the model knows", weight=round(best, 4))]
        return found

    # Of each kind: a text, and the item of the history that it names; None where there is no fact to tell.

    def _history(self, place: Place) -> Told:
        return (f"goes with {self.titles[place.owed]}", place.owed) if place.owed >= 0 else None

    def _text(self, place: Place) -> Told:
        return (f"described like {self.titles[place.near]}", place.near) if place.near >= 0 else None

    def _graph(self, place: Place) -> Told:
        return self._joined("graph", place)

    def _keywords(self, place: Place) -> Told:
        return self._joined("keywords", place)

    def _joined(self, name: str, place: Place) -> Told:
        """The rarest neighbour that the item shares with one of the history: same director as ..."""
        graph = self.model.parts.kinds.graphs.get(name)
        found = graph.shared(place.newest, place.item) if graph is not None and len(place.newest) else None
        return (f"{found[0]} {self.titles[found[1]]}", found[1]) if found else None

    def _modality(self, place: Place) -> Told:
        """The item of the history whose vector is nearest, in the modality where that is nearest."""
        found = alike(self.model.parts.kinds.modalities, place.newest, place.item, 0)
        return (f"{found[0]} like that of {self.titles[found[1]]}", found[1]) if found else None

    def _category(self, place: Place) -> Told:
        shared = sorted(self.categories[place.item] & place.kinds)
        return (f"also {', '.join(shared[:3])}", None) if shared else None

    def _popular(self, place: Place) -> Told:
        """By how many lately; the state keeps the last takers, so from their number on it is 'or more'."""
        if not self.model.parts.lives:
            return "much taken", None
        for count, (_, words) in zip(place.lately, SPANS, strict=True):
            if count >= 2:
                more = " or more" if count == self.present.takers.width else ""
                return f"taken by {count}{more} in {words}", None
        return (f"taken {place.count} times", None) if place.count > 1 else None

    def _new(self, place: Place) -> Told:
        if not self.model.parts.lives:
            return None
        new = place.count == 0 or place.first > place.now - 30 * MICROSECONDS_A_DAY
        return ("new here", None) if new else None
