"""What the champion makes of new data: its scores, its lists, and whether it still finds what users take.

In: a model, its catalogue, the log of all interactions that are known. Out: signals as in
`pipeline.drift.signals`, and the difference in quality. Compared are points (`Log.successes`) of a window
with points of the champion's own test window at its promotion, fit_end < t <= promoted_as_of: neither was
fitted on. A window that lies within that one has nothing new to say; of one that begins within it, the later
part counts. Points: at most `max_points_per_user` a user and `quality_points` a side, by a fixed-salt hash.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.data.histories import Catalogue, Log, Points
from pipeline.documents.model import Card
from pipeline.drift import signals as drift_signals
from pipeline.drift import statistics
from pipeline.evaluation import metrics
from pipeline.models import ranking
from pipeline.models.artifacts import CARD
from pipeline.models.ranking import Model

log = logging.getLogger(__name__)
K = 10
LEAST_POINTS, LEAST_USERS = 50, 20  # a side; with fewer nothing is said
SAMPLES = 1000  # of the bootstrap
NAMES = ("scores", "coverage", "list_popularity")
_SALT = "evergreen.drift.points"


@dataclass(frozen=True)
class Champion:
    """A fitted model over a catalogue, and the log of its live state, about whose points it is asked."""

    model: Model
    catalogue: Catalogue
    log: Log
    vectors: np.ndarray | None  # (items, d) of the catalogue; zero rows: no text
    fit_end: pd.Timestamp
    promoted_as_of: pd.Timestamp  # how far its test window reached
    version: str | None = None
    max_points_per_user: int = 20

    def vectors_of(self, item_ids: np.ndarray) -> np.ndarray | None:
        """(ids, d); zero rows for items without one."""
        if self.vectors is None:
            return None
        place = self.catalogue.index(item_ids)
        return np.where((place >= 0)[:, None], self.vectors[place], 0)


@dataclass(frozen=True)
class Lists:
    """What a champion would have shown at some points."""

    user: np.ndarray  # (points,)
    listed: np.ndarray  # (points, K) item indices, -1: none
    top_score: np.ndarray  # (points,) NaN: nothing could be scored
    ndcg: np.ndarray  # (points,) at K


class Behaviour:
    """Lists at the champion's own test points, made once, against those of any window."""

    def __init__(self, champion: Champion, quality_points: int) -> None:
        self.champion = champion
        self.most = quality_points
        fitted = champion.log.item[champion.log.time <= _stamp(champion.fit_end)]
        self.popularity = np.bincount(fitted, minlength=len(champion.catalogue))
        self.order = ranking.popularity_order(self.popularity, champion.catalogue.ids)
        after, until = _stamp(champion.fit_end), _stamp(champion.promoted_as_of)
        self.reference = self._lists(after, until)

    def window(self, start: pd.Timestamp, end: pd.Timestamp) -> tuple[Lists, Lists] | str:
        """Lists of the reference and of start <= t <= end; or why they cannot be compared."""
        promoted = _stamp(self.champion.promoted_as_of)
        if _stamp(end) <= promoted:
            return "the champion was evaluated on these rows when it was promoted"
        if lacking := _lacking(self.reference):
            return f"{lacking} in the champion's own test window"
        lists = self._lists(max(_stamp(start) - 1, promoted), _stamp(end))
        if lacking := _lacking(lists):
            return f"{lacking} in this window since the champion's promotion"
        return self.reference, lists

    def _lists(self, after: int, until: int) -> Lists:
        chosen = self._points(after, until)
        catalogue = self.champion.catalogue
        listed, score = ranking.rank_points(self.champion.model, chosen, catalogue, self.order, K)
        rank = metrics.target_rank(listed, chosen.target)
        return Lists(chosen.user, listed, score[:, 0], metrics.accuracy(rank, K)["ndcg"])

    def _points(self, after: int, until: int) -> Points:
        known, catalogue = self.champion.log, self.champion.catalogue
        points = known.successes((known.time > after) & (known.time <= until))
        points = points[
            (catalogue.available_from[points.target] <= points.time)
            & (points.time < catalogue.available_until[points.target])
        ]
        ids = catalogue.ids[points.target]
        draw = np.array(
            [_draw(item, moment) for item, moment in zip(ids, points.time, strict=True)], dtype=np.uint64
        )
        order = np.lexsort((draw, points.user))
        user = points.user[order]
        place = np.arange(len(user)) - np.searchsorted(user, user)
        kept = order[place < self.champion.max_points_per_user]
        return points[np.sort(kept[np.argsort(draw[kept], kind="stable")][: self.most])]


def signals(
    behaviour: Behaviour, reference: Lists, current: Lists
) -> tuple[np.ndarray, dict[str, drift_signals.Signal | str]]:
    """(blocks,) bool, current or not, and what to test over these blocks."""
    user = np.r_[reference.user, current.user]
    side = np.arange(len(user)) >= len(reference.user)
    block, block_current = drift_signals.blocks_of(user, side)
    listed = np.concatenate([reference.listed, current.listed])
    score = np.r_[reference.top_score, current.top_score].astype(float)
    results: dict[str, drift_signals.Signal | str] = {
        "scores": _scores(score, side, block, len(block_current)),
        "coverage": _coverage(listed, side, block, len(behaviour.popularity), len(block_current)),
        "list_popularity": _list_popularity(listed, behaviour.popularity, block, len(block_current)),
    }
    return block_current, results


def quality(reference: Lists, current: Lists, seed: int) -> statistics.Difference:
    """nDCG@10 of now less that at promotion."""
    return statistics.user_difference(
        (reference.user, reference.ndcg), (current.user, current.ndcg), SAMPLES, seed
    )


def _scores(
    score: np.ndarray, side: np.ndarray, block: np.ndarray, blocks: int
) -> drift_signals.Signal | str:
    known = np.isfinite(score)
    if not (known & side).any() or not (known & ~side).any():
        return "the champion scored nothing on a side"
    edges = drift_signals.edges(score[known])
    code = np.searchsorted(edges, np.where(known, score, 0), side="left")[known]
    cells = (np.ones(len(code)), (block[known], code))
    sums = sp.csr_matrix(cells, shape=(blocks, len(edges) + 1))
    old, new = (float(np.median(score[known & each])) for each in (~side, side))

    def judge(tested: statistics.Tested) -> drift_signals.Finding:
        apart = drift_signals.apart(tested.excess)
        fact = f"The champion's top score: median {new:.3g} (at promotion {old:.3g}), {apart}"
        return drift_signals.Finding(tested.excess, tested.excess, fact)

    return drift_signals.Signal("scores", statistics.Part(sums, statistics.gap), judge)


def _coverage(
    listed: np.ndarray, side: np.ndarray, block: np.ndarray, items: int, blocks: int
) -> drift_signals.Signal:
    """Different items listed, of as many as could be, at equally many points a side."""
    fewest = min(side.sum(), (~side).sum())
    kept = np.concatenate([np.flatnonzero(~side)[:fewest], np.flatnonzero(side)[:fewest]])
    point, place = np.nonzero(listed[kept] >= 0)
    cells = (np.ones(len(point)), (block[kept][point], listed[kept][point, place]))
    sums = sp.csr_matrix(cells, shape=(blocks, items))
    could = max(1, min(items, fewest * K))

    def spread(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
        return np.abs((current > 0.5).sum(axis=1) - (reference > 0.5).sum(axis=1)) / could

    def judge(tested: statistics.Tested) -> drift_signals.Finding:
        old, new = (float((each > 0.5).sum() / could) for each in (tested.reference, tested.current))
        fact = (
            f"The champion's lists show {drift_signals.percent(new)} of the items that they could "
            f"(at promotion {drift_signals.percent(old)})"
        )
        return drift_signals.Finding(new - old, abs(new - old), fact)

    return drift_signals.Signal("coverage", statistics.Part(sums, spread), judge)


def _list_popularity(
    listed: np.ndarray, popularity: np.ndarray, block: np.ndarray, blocks: int
) -> drift_signals.Signal:
    mean = metrics.list_means(listed, metrics.percentiles(popularity))
    known = np.isfinite(mean)
    sums = [np.bincount(block[known], each, blocks) for each in (mean[known], np.ones(known.sum()))]

    def judge(tested: statistics.Tested) -> drift_signals.Finding:
        old, new = (float(each[0] / max(each[1], 1)) for each in (tested.reference, tested.current))
        fact = (
            f"What the champion lists is more popular than {drift_signals.percent(new)} of the catalogue "
            f"(at promotion {drift_signals.percent(old)})"
        )
        return drift_signals.Finding(new - old, abs(new - old), fact)

    return drift_signals.Signal(
        "list_popularity", statistics.Part(np.stack(sums, axis=1), statistics.change), judge
    )


def _lacking(lists: Lists) -> str | None:
    users = len(np.unique(lists.user))
    if len(lists.user) < LEAST_POINTS or users < LEAST_USERS:
        return f"only {len(lists.user)} points of {users} users ({LEAST_POINTS} of {LEAST_USERS} are needed)"
    return None


def _draw(item: Any, moment: int) -> int:
    digest = hashlib.md5(f"{_SALT}|{item}|{moment}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _stamp(moment: pd.Timestamp) -> int:
    return int(pd.Timestamp(moment).value // 1000)


# From a model folder ---------------------------------------------------------------------------------------


def load(folder: Path, interactions: pd.DataFrame, items: pd.DataFrame) -> Champion | str:
    """The model in `folder` over raw tables, prepared as its card says; or why it cannot be asked.

    `interactions` are all that are known, old ones too. Raises ArtifactError for a damaged folder.
    """
    from pipeline.models.preparation import Preparation
    from pipeline.models.recommender import Recommender

    card = Card.read(folder / CARD)
    how = Preparation.of(card)
    if how is None or card.as_of is None or card.fit_end is None or card.preprocess is None:
        return "the champion's card does not say how its data were prepared"
    table, known, _ = how.apply(interactions, items)
    model = Recommender.load(folder, table, known, "champion")
    return Champion(
        model=model,
        catalogue=model.catalogue,
        log=known,
        vectors=model.text,
        fit_end=pd.Timestamp(card.fit_end),
        promoted_as_of=pd.Timestamp(card.as_of),
        version=model.version,
        max_points_per_user=card.preprocess["max_points_per_user"],
    )
