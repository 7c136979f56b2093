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
from pipeline.models.recommender import Recommender
from pipeline.models.state import NOT_YET
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
        scorer = model.scorer
        self.inputs, self.weight = scorer.inputs, scorer.linear
        of_feature = np.array([kind_of(name) for name in model.card["features"]])
        self.kinds = np.unique(of_feature)
        self.member = (of_feature[:, None] == self.kinds).astype(np.float32)  # (features, kinds)

    def added(self, features: np.ndarray, listed: np.ndarray) -> dict[str, np.ndarray]:
        """Kind -> (listed,) what it adds. `features`: (candidates, features); `listed`: rows of it."""
        inputs = self.inputs(features)
        parts = (self.weight * (inputs[listed] - inputs.mean(axis=0))) @ self.member
        return {str(kind): parts[:, place] for place, kind in enumerate(self.kinds)}


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
    close: np.ndarray  # (newest,) cosine of each one's text
    kinds: frozenset[str]  # categories of the very newest
    owed: int  # the history item that the item owes most; -1: none
    count: int  # rows of the item before the moment
    first: int  # microseconds of the first of them


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
        self, asked: Asked, features: np.ndarray, items: np.ndarray, listed: np.ndarray, living: Living
    ) -> list[list[Reason]]:
        """Of the rows `listed` among the one point's candidates `items`, whose features these are.

        `living`: the state of the point's moment, which is now or earlier.
        """
        added = self._linear.added(features, listed)
        points, top = asked.points, items[listed]
        state = living.live.at(top, points.time)
        owed = self.model.parts.collaborative.owed(asked, 0, top)
        newest, vectors = _newest(points, READ), self.model.text
        close = np.zeros((0, len(top))) if vectors is None else vectors[newest] @ vectors[top].T
        kinds = frozenset().union(*(self.categories[item] for item in _newest(points, VERY_NEWEST)))
        found = []
        for row, item in enumerate(top):
            place = Place(
                int(item),
                int(points.time[0]),
                newest,
                close[:, row],
                kinds,
                int(owed[row]),
                int(state.count[row]),
                int(state.first[row]),
            )
            found.append(self._of_item(place, {kind: float(each[row]) for kind, each in added.items()}))
        return found

    def _of_item(self, place: Place, added: dict[str, float]) -> list[Reason]:
        found = []
        for kind in sorted(added, key=lambda kind: -added[kind]):
            # By name: a table of bound methods is a cycle, which memory leaves only by a collection.
            told = getattr(self, f"_{kind}")(place) if added[kind] > 0 and kind in KINDS else None
            if told is not None:
                text, near = told
                item_id = None if near is None else str(self.ids[near])
                found.append(Reason(kind=kind, text=text, weight=round(added[kind], 4), item_id=item_id))
        if not found:
            best = max(added.values(), default=0.0)
            found = [Reason(kind="model", text="fits what the model knows", weight=round(best, 4))]
        return found[:MOST]

    # Of each kind: a text, and the item of the history that it names; None where there is no fact to tell.

    def _history(self, place: Place) -> Told:
        return (f"goes with {self.titles[place.owed]}", place.owed) if place.owed >= 0 else None

    def _text(self, place: Place) -> Told:
        if place.close.max(initial=0) <= 0:
            return None
        near = int(place.newest[place.close.argmax()])
        return f"described like {self.titles[near]}", near

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
        best, told = 0.0, None
        for modality in self.model.parts.kinds.modalities:
            close = modality.vectors[place.newest] @ modality.vectors[place.item]
            if close.max(initial=0) > best:
                near = int(place.newest[close.argmax()])
                best, told = float(close.max()), (f"{modality.name} like that of {self.titles[near]}", near)
        return told

    def _category(self, place: Place) -> Told:
        shared = sorted(self.categories[place.item] & place.kinds)
        return (f"also {', '.join(shared[:3])}", None) if shared else None

    def _popular(self, place: Place) -> Told:
        """By how many lately; the state keeps the last takers, so from their number on it is 'or more'."""
        if not self.model.parts.lives:
            return "much taken", None
        times = self.present.takers.time[place.item]
        times = times[(times > NOT_YET) & (times < place.now)]
        for days, words in SPANS:
            count = int((times > place.now - days * MICROSECONDS_A_DAY).sum())
            if count >= 2:
                more = " or more" if count == self.present.takers.width else ""
                return f"taken by {count}{more} in {words}", None
        return (f"taken {place.count} times", None) if place.count > 1 else None

    def _new(self, place: Place) -> Told:
        if not self.model.parts.lives:
            return None
        new = place.count == 0 or place.first > place.now - 30 * MICROSECONDS_A_DAY
        return ("new here", None) if new else None
