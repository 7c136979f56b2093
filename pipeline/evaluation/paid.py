"""What each kind of signal brings to a model's lists, with nothing fitted anew.

In: a trained model, points with targets. Out: of each kind of its scorer's columns the nDCG@10 of the model
as it is minus that with these columns at their mean over the sample that the scorer was fitted on, where they
say nothing; paired, users redrawn. Candidates stay, so what a signal retrieves is no part of its gain, and
what another kind says as well is not missed. What a model loses that is fitted without a signal:
`evergreen bench signals`.
"""

from __future__ import annotations

import numpy as np

from pipeline.data.histories import Points
from pipeline.evaluation import metrics
from pipeline.models.modalities import PREFIX as VECTOR
from pipeline.models.modalities import label
from pipeline.models.parts import stacked
from pipeline.models.recommender import Recommender

POINTS, K = 1000, 10  # points that are asked, at most
KINDS = {
    "taken together": ("ease", "knn", "rules", "ials"),
    "sequence": ("sequence",),
    "texts": ("text", "imputed"),
    "graph": ("graph",),
    "keywords": ("keywords",),
    "categories and years": ("categories", "year", "release"),
    "live state": ("live", "folded", "neighbours"),
    "counts of train": ("train_count", "item_", "cold"),
    "length of history": ("history",),
    "repeats": ("repeat",),
}


def kind_of(feature: str) -> str:
    """By the beginning of its name; of a modality its own name."""
    if feature.startswith(VECTOR):
        return label(feature.removeprefix(VECTOR).rpartition("_")[0])
    return next((kind for kind, starts in KINDS.items() if feature.startswith(starts)), "other")


def paid(model: Recommender, points: Points, samples: int, seed: int) -> dict[str, dict[str, float]]:
    """Kind -> {"ndcg@10", "low", "high"} of what it adds, the most first; empty without points."""
    points = points[:: max(1, -(-len(points) // POINTS))]
    names, scorer = list(model.card["features"]), model.scorer
    kinds: dict[str, list[int]] = {"": []}  # the model as it is
    for place, name in enumerate(names):
        kinds.setdefault(kind_of(name), []).append(place)
    mean, gains = scorer.mean, dict[str, list[np.ndarray]]()
    for asked in model.parts.ask(points):
        items = model.parts.candidates(asked)
        features = stacked(model.parts.columns(asked, items), names)
        for kind, places in kinds.items():
            own = features[:, :, places].copy()
            features[:, :, places] = mean[places]
            scores = np.where(items >= 0, scorer.score(features), -np.inf)
            features[:, :, places] = own
            gains.setdefault(kind, []).append(_gains(items, scores, asked.points.target))
    if not len(points):
        return {}
    whole = np.concatenate(gains.pop(""))
    lost = np.stack([whole - np.concatenate(of) for of in gains.values()], axis=1)
    of_users = metrics.group_means(lost, points.user)
    low, high = metrics.interval(metrics.user_bootstrap(of_users, samples, seed))
    ends = zip(of_users.mean(axis=0), low, high, strict=True)
    rows = [dict(zip(("ndcg@10", "low", "high"), map(float, each), strict=True)) for each in ends]
    return dict(sorted(zip(gains, rows, strict=True), key=lambda pair: -pair[1]["ndcg@10"]))


def _gains(items: np.ndarray, scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(points,) nDCG@10 of the one target among the candidates; ties count against."""
    here = (items == target[:, None]) & (items >= 0)
    own = np.where(here, scores, -np.inf).max(axis=1, initial=-np.inf)
    rank = (scores >= own[:, None]).sum(axis=1)
    return metrics.discounted(np.where(own > -np.inf, rank, 0), K)
