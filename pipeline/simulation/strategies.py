"""Ways to make lists that can be trained anew: the relatives of given models, and planted ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.data.histories import Catalogue, Points
from pipeline.models import baselines
from pipeline.models.collaborative import Collaborative, Settings
from pipeline.models.living import Living
from pipeline.models.recommender import Recommender
from pipeline.models.text import Text
from pipeline.simulation.loop import Past

MOST_CANDIDATES = 200  # to the scorer: the best of the retrievers; lists are as good, in half the time


@dataclass(frozen=True)
class Relative:
    """A given model whose collaborative part, text regression and live state are fitted to a loop's log.

    Its scorer, text vectors and sequence tower stay: they are what two models differ in, and what they
    learned to weigh decides where a loop drifts. (A tower knows the items of its own training alone.)
    The loop's catalogue has the model's items, offered at other times.
    """

    model: Recommender
    settings: Settings

    @classmethod
    def of(cls, model: Recommender) -> Relative:
        """With the settings of its own training, as its card tells."""
        default = Settings(positives_only=False, regularisation=300.0).told()
        return cls(model, Settings.of(default | (model.card.get("training") or {})))

    def train(self, past: Past, catalogue: Catalogue) -> Recommender:
        model, log = self.model, past.log
        parts, own = model.parts, model.parts.living.live
        fitted = Collaborative.fit(log, log.fit, len(catalogue), self.settings, past.seed)
        living = Living.of(log, catalogue, own.half_lives, fitted.ials, own.delay / 1_000_000)
        text = None if parts.text is None else Text.fit(parts.text.vectors, catalogue, fitted)
        parts = replace(
            parts,
            catalogue=catalogue,
            collaborative=fitted,
            text=text,
            living=living,
            most=min(parts.most, MOST_CANDIDATES),
            felt=None,
        )
        return replace(model, parts=parts, sentiment=None)


@dataclass(frozen=True)
class Ease:
    """EASE on a random share of the log's rows: seconds for a whole loop, and seeds that matter."""

    seed: int
    new_only: bool = False  # lists nothing that the user has had, also where repeats count
    share: float = 0.9
    half_life: float = 10.0
    regularisation: float = 300.0

    def train(self, past: Past, catalogue: Catalogue) -> baselines.Scorer:
        log = past.log
        drawn = np.random.default_rng([self.seed, past.seed]).random(len(log)) < self.share
        met = baselines.interactions(log, drawn & log.positive, len(catalogue))
        score = baselines.ease(met, self.regularisation).score
        model = baselines.HistoryScorer("ease", len(catalogue), score, self.half_life)
        return NewOnly(model) if self.new_only else model


@dataclass(frozen=True)
class NewOnly:
    other: baselines.Scorer
    name: str = "new_only"

    def score(self, points: Points) -> np.ndarray:
        scores = self.other.score(points)
        point, row = points.rows()
        scores[point, points.log.item[row]] = np.nan
        return scores


@dataclass(frozen=True)
class RichGetRicher:
    """Planted: ranks by what its own lists have shown so far, mixed with a little of another model."""

    other: Ease
    own: float = 1.0  # weight of log(1 + shown) in deviations

    def train(self, past: Past, catalogue: Catalogue) -> Shown:
        count = np.log1p(past.shown).astype(np.float32)
        spread = count.std() or 1.0
        return Shown(self.other.train(past, catalogue), self.own * (count - count.mean()) / spread)


@dataclass(frozen=True)
class Shown:
    other: baselines.Scorer
    bonus: np.ndarray  # (items,)
    name: str = "rich_get_richer"

    def score(self, points: Points) -> np.ndarray:
        scores = self.other.score(points)
        mean = np.nanmean(scores, axis=1, keepdims=True)
        spread = np.nanstd(scores, axis=1, keepdims=True)
        return np.asarray((scores - mean) / np.where(spread > 0, spread, 1) + self.bonus, dtype=np.float32)
