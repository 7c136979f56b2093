"""One list, from a question and a bound champion: candidates, filters, scores, diversity, reasons."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.data import tables
from pipeline.data.histories import Points
from pipeline.errors import DataError
from pipeline.evaluation.exploration import FEATURES, LEAST_K, PLACES, POOL, drawn
from pipeline.models.asked import Asked
from pipeline.models.pairs import Retrieved
from pipeline.models.questions import text_closeness, text_reason
from pipeline.models.recommender import Recommender
from pipeline.models.words import Typed
from pipeline.serve.messages import Listed, Question, Reason
from pipeline.serve.reasons import MOST, Explainer
from pipeline.serve.single import One, union
from pipeline.serve.state import Rows
from pipeline.serve.sums import Space
from pipeline.serve.world import World

BY_TEXT = 300  # items nearest to a text
OF_CATEGORIES = 500  # most popular items of the categories asked for
COMPARED = 100  # best items among which a diverse list is chosen, at least
POPULAR = Reason(kind="popular", text="often taken", weight=0.0)


class Unknown(DataError):
    """The question names what is not there."""


@dataclass(frozen=True)
class Scored:
    """The candidates of one point."""

    items: np.ndarray  # (candidates,) int32
    score: np.ndarray  # (candidates,) float32
    inputs: np.ndarray | None  # (candidates, features) float32 of the scorer; None: not the model's scores
    close: np.ndarray | None = None  # (candidates,) what nearness to the text adds to the score
    typed: Typed | None = None  # the text, where `close` is given


class Lister:
    """Lists over one world. Not for several threads."""

    def __init__(self, world: World) -> None:
        self.world = world
        catalogue = world.model.catalogue
        self.place = world.place
        self.explainer = Explainer(world.model, world.present)
        self.ids = self.explainer.ids
        self.space = Space(len(self.ids))
        self.by_order = np.argsort(world.order)
        self._members: defaultdict[str, list[int]] = defaultdict(list)
        for item in self.by_order.tolist():
            for category in self.explainer.categories[item]:
                self._members[category].append(item)
        self.titles: list[str | None] = [None] * len(self.ids)
        if tables.TITLE in catalogue.items:
            titles = catalogue.items[tables.TITLE].astype(object)
            self.titles = titles.where(titles.notna() & (titles != ""), None).tolist()

    def name(self, item: int, item_id: str, title: object, categories: list[str]) -> None:
        """An item that is new, or called otherwise."""
        own, told = frozenset(categories), None if pd.isna(title) or not title else str(title)
        for category in own - self.explainer.categories[item]:
            self._members[category].append(item)
        for category in self.explainer.categories[item] - own:
            self._members[category].remove(item)
        self.explainer.categories[item], self.ids[item], self.titles[item] = own, item_id, told
        self.explainer.titles[item] = told or item_id

    def rows(self, question: Question, now: int) -> tuple[int, Rows]:
        """(number of the user, its rows with those given in place). Raises Unknown for an item nobody has."""
        present = self.world.present
        user = -1 if question.user_id is None else present.user(question.user_id)
        rows = present.rows(user)
        if question.history:
            rows = rows.joined(self._given(question, now))
        return user, rows

    def _given(self, question: Question, now: int) -> Rows:
        history = question.history or []
        items = [self.place.get(each.item_id, -1) for each in history]
        if -1 in items:
            place = items.index(-1)
            raise Unknown(
                f"history.{place}.item_id: no item {history[place].item_id!r}: take one of the catalogue's"
            )
        ago = np.arange(len(items), 0, -1) * 1_000_000
        times = [
            now - int(ago[place]) if each.timestamp is None else round(each.timestamp.timestamp() * 1_000_000)
            for place, each in enumerate(history)
        ]
        how = self.world.preparation
        taken = (how.positive.events or [""])[0]  # of a row that does not say: its value counts
        success = [how.is_success(each.event or taken, each.value) for each in history]
        values = [np.nan if each.value is None else each.value for each in history]
        return Rows(
            np.array(items, np.int32),
            np.minimum(np.array(times, np.int64), now - 1),
            np.array(success, bool),
            np.array(values, np.float32),
            np.array(success, bool),
        )

    def answer(
        self,
        question: Question,
        user: int,
        rows: Rows,
        now: int,
        text: np.ndarray | None,
        model: Recommender,
        chance: np.random.Generator | None = None,
    ) -> list[Listed]:
        """`text`: (width,) centred vector of question.text; `model`: that of the present, or of `now`;
        `chance`: what draws the last places of the list; None: all are the best."""
        points = rows.points(user, now, self.world.preparation.repeats)
        asked = One(points, len(self.ids))
        scored = self._scored(asked, question, text, model)
        best, chances = self._best(scored, question, chance, points, model)
        reasons: list[list[Reason]] = [[] for _ in best]
        if question.explain and scored.inputs is not None:
            reasons = self.explainer.reasons(asked, scored.inputs, scored.items, best, model.parts.living)
        if question.explain and scored.close is not None:
            told = [self._of_text(scored, int(row)) for row in best]
            reasons = [[first, *others][:MOST] for first, others in zip(told, reasons, strict=True)]
        listed = [
            self._row(int(scored.items[row]), rank, float(scored.score[row]), why, propensity)
            for rank, (row, why, propensity) in enumerate(zip(best, reasons, chances, strict=True), 1)
        ]
        if len(listed) < question.k:
            taken = {int(scored.items[row]) for row in best}
            listed += self._filling(question, points, taken, len(listed))
        return listed

    def _of_text(self, scored: Scored, row: int) -> Reason:
        """How near the item's text is, in words that both have; its weight is what it adds to the score."""
        assert scored.close is not None
        assert scored.typed is not None
        text = text_reason(scored.typed, int(scored.items[row]))
        return Reason(kind="text", text=text, weight=round(float(scored.close[row]), 4))

    def popular(self, question: Question, now: int, model: Recommender) -> list[Listed]:
        """What everybody takes lately, where the model cannot be asked."""
        columns = (np.int32, np.int64, bool, np.float32, bool)
        point = Rows(*(np.zeros(0, kind) for kind in columns)).points(-1, now, False)
        lately = model.parts.living.lately(np.array([now]), question.k + len(question.exclude) + 100)[0]
        items = self._allowed(question, point, lately)
        items = items[items >= 0][: question.k]
        listed = [self._row(int(item), rank, None, [POPULAR]) for rank, item in enumerate(items, 1)]
        return listed + self._filling(question, point, set(items.tolist()), len(listed))

    # Candidates -------------------------------------------------------------------------------------------

    def _scored(
        self, asked: Asked, question: Question, text: np.ndarray | None, model: Recommender
    ) -> Scored:
        parts, points = model.parts, asked.points
        lists: Retrieved = {} if text is not None else parts.retrieve(asked)
        if question.categories:
            lists["categories"] = self._padded(self._of_categories(question)[:OF_CATEGORIES])
        close = typed = None
        if text is not None and model.text is not None:
            typed = self.world.words.typed(question.text or "")
            close = text_closeness(model, text, typed)
            close[np.isnan(close)] = -np.inf
            lists["asked"] = self._padded(self._nearest(close, question, points))
        items = union(lists, lambda items: self._fine(question, points, items), parts.most, self.space)
        if not len(items):
            return Scored(items, np.zeros(0, np.float32), None)
        if close is not None and not points.lengths[0]:
            near = close[items].astype(np.float32)
            return Scored(items, near, None, near, typed)
        columns = parts.columns(asked, items[None])
        features = np.concatenate([columns[name] for name in model.card["features"]])
        inputs = model.scorer.inputs(features.T.astype(np.float32, copy=False))
        score = model.scorer.of_inputs(inputs)
        near = None
        if close is not None:
            near = _standard(close[items])
            score = _standard(score) + near
        return Scored(items, score, inputs, near, typed)

    def _nearest(self, close: np.ndarray, question: Question, points: Points) -> np.ndarray:
        if question.categories:
            members = self._of_categories(question)
            return members[np.argsort(-close[members], kind="stable")][:BY_TEXT]
        most = min(len(close), BY_TEXT + int(points.lengths[0]) + len(question.exclude))
        best = np.argpartition(-close, most - 1)[:most]
        return best[np.argsort(-close[best], kind="stable")]

    def _of_categories(self, question: Question) -> np.ndarray:
        """Items that have one of the categories asked for, the most popular first."""
        members = {item for name in question.categories or [] for item in self._members.get(name, [])}
        items = np.fromiter(members, np.int32, len(members))
        return items[np.argsort(self.world.order[items])]

    @staticmethod
    def _padded(items: np.ndarray) -> np.ndarray:
        return np.asarray(items, np.int32)[None]

    def _allowed(self, question: Question, points: Points, items: np.ndarray) -> np.ndarray:
        """The (n,) items with -1 for what may not be listed."""
        fine = (items >= 0) & self._fine(question, points, np.maximum(items, 0))
        return np.where(fine, items, -1).astype(np.int32)

    def _fine(self, question: Question, points: Points, items: np.ndarray) -> np.ndarray:
        """(n,) bool: not what the question excludes, what is not on offer, what the user had."""
        catalogue, now = self.world.model.catalogue, int(points.time[0])
        fine = (catalogue.available_from[items] <= now) & (now < catalogue.available_until[items])
        if not points.log.repeats:
            fine &= ~self.space.among(items, points.log.item[: int(points.stop[0])])
        if question.exclude:
            fine &= ~np.isin(items, [self.place.get(item, -1) for item in question.exclude])
        if question.categories:
            wanted = set(question.categories)
            fine &= np.array([bool(wanted & self.explainer.categories[item]) for item in items], bool)
        return fine

    # From scores to rows ----------------------------------------------------------------------------------

    def _best(
        self,
        scored: Scored,
        question: Question,
        chance: np.random.Generator | None,
        points: Points,
        model: Recommender,
    ) -> tuple[np.ndarray, list[float]]:
        """((at most k,) rows of the candidates, best first; with which probability each stands there)."""
        order = np.lexsort((self.world.order[scored.items], -scored.score))
        if question.diversity > 0 and len(order) > 1:
            order = order[: max(COMPARED, 5 * question.k)]
            order = order[self._diverse(scored.items[order], scored.score[order], question)]
        elif chance is not None and question.k >= LEAST_K:
            fixed, pool = np.split(order[: question.k - PLACES + POOL], [question.k - PLACES])
            draws, features = self.world.draws, None
            if draws.weights:
                features = model.live_features(points, scored.items[pool][None], list(FEATURES))[0]
            rows, chances = drawn(draws.worths(scored.score[pool], features), chance)
            return np.r_[fixed, pool[rows]], [1.0] * len(fixed) + chances
        order = order[: question.k]
        return order, [1.0] * len(order)

    def _diverse(self, items: np.ndarray, score: np.ndarray, question: Question) -> np.ndarray:
        """Maximal marginal relevance (Carbonell & Goldstein 1998) of items that come best first."""
        spread = float(score[0] - score[-1])
        relevance = (score - score[-1]) / (spread if spread > 0 else 1.0)
        alike = self._alike(items)
        nearest, chosen = np.zeros(len(items)), np.zeros(len(items), bool)
        places = []
        for _ in range(min(question.k, len(items))):
            gain = (1 - question.diversity) * relevance - question.diversity * nearest
            gain[chosen] = -np.inf
            best = int(gain.argmax())
            chosen[best] = True
            places.append(best)
            nearest = np.maximum(nearest, alike[best])
        return np.array(places, np.int64)

    def _alike(self, items: np.ndarray) -> np.ndarray:
        """(n, n) mean of the cosines of texts and of categories."""
        kinds = self.world.model.parts.kinds.categories[items]
        alike = (kinds @ kinds.T).toarray()
        text = self.world.model.text
        return alike if text is None else (alike + text[items] @ text[items].T) / 2

    def _filling(self, question: Question, points: Points, taken: set[int], have: int) -> list[Listed]:
        """Popular items behind those listed, unscored."""
        found: list[Listed] = []
        if question.categories:
            pool = self._of_categories(question)
        else:
            pool = self.by_order[: 2 * (question.k + int(points.lengths[0]) + len(question.exclude)) + 1_000]
        for item in self._allowed(question, points, pool):
            if have + len(found) >= question.k:
                break
            if item >= 0 and int(item) not in taken:
                found.append(
                    self._row(int(item), have + len(found) + 1, None, [POPULAR] if question.explain else [])
                )
        return found

    def _row(
        self, item: int, rank: int, score: float | None, reasons: list[Reason], propensity: float = 1.0
    ) -> Listed:
        return Listed(
            item_id=str(self.ids[item]),
            rank=rank,
            score=None if score is None else round(score, 6),
            propensity=propensity,
            title=self.titles[item],
            categories=sorted(self.explainer.categories[item]),
            reasons=reasons,
        )

    # Items like an item -----------------------------------------------------------------------------------

    def similar(self, item_id: str, k: int, now: int) -> list[Listed]:
        """By what users take together (cosine of the factors) and by text, whichever there is of both."""
        if item_id not in self.place:
            raise Unknown(f"{item_id!r}: no such item")
        item, model = self.place[item_id], self.world.model
        factors = model.parts.collaborative.ials
        total, count = np.zeros(len(self.ids)), np.zeros(len(self.ids))
        if factors.known[item]:
            norms = np.linalg.norm(factors.vectors, axis=1)
            total += (factors.vectors @ factors.vectors[item]) / np.maximum(norms * norms[item], 1e-9)
            count += factors.known
        if model.text is not None and model.text[item].any():
            there = model.text.any(axis=1)
            total += np.where(there, model.text @ model.text[item], 0)
            count += there
        score = np.where(count > 0, total / np.maximum(count, 1), -np.inf)
        catalogue = model.catalogue
        score[(catalogue.available_from > now) | (now >= catalogue.available_until)] = -np.inf
        score[item] = -np.inf
        best = np.lexsort((self.world.order, -score))[:k]
        best = best[score[best] > -np.inf]
        return [self._row(int(each), rank, float(score[each]), []) for rank, each in enumerate(best, 1)]


def _standard(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    mean, deviation = values[finite].mean(), values[finite].std()
    return np.where(finite, (values - mean) / (deviation if deviation > 0 else 1.0), -10.0).astype(np.float32)
