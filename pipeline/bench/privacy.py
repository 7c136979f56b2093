"""What a budget of privacy costs, and what an attack on membership still finds out: nDCG@10 against epsilon.

In: data/prepared, or a folder like data/raw; without one also the embedded sets. Out: of each set and budget
nDCG@10 at the test points, and the area under the ROC curve of telling members from others, with 95 %
intervals (users drawn with replacement) and the area that no attack exceeds.
Rule: a private model (pipeline/training/private.py) is released DRAWS times for each epsilon, delta as in
params.yaml or 1e-5; figures are means over the draws. `no_noise` are the same parts without noise, `off` is
the light model (training/recipe.py) of all parts, which also knows what others did since. Constants of the
private model were chosen on validation of MovieLens 100K; the test window is scored once.
Attack: train's users are dealt into three. A model is released of the members alone; who attacks it has one,
without noise, of the third group, and asks both how well they know a user: mean EASE score of what the user
took, each from the rest of it, less that of other items. The more the released one knows a user better than
the other does, the likelier it is a member (Watson et al., "On the importance of difficulty calibration in
membership inference attacks", 2022). Members and the second group, as many, are told apart by that.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from pipeline.bench.signals import worlds
from pipeline.data.histories import Prepared
from pipeline.evaluation import metrics, tuning
from pipeline.evaluation.figures import HEADLINE
from pipeline.models import baselines
from pipeline.models.asked import Asked
from pipeline.models.baselines import ItemMatrix, train_rows
from pipeline.models.parts import CHUNK
from pipeline.models.private import Budget, Released, most_auc, public_facts, taken
from pipeline.models.ranking import top_candidates
from pipeline.models.recommender import Recommender
from pipeline.models.text import Space
from pipeline.params import Params
from pipeline.training.private import private_model
from pipeline.training.recipe import LIGHT, Serving, light

OWN = Path("data/prepared")
EPSILONS = (math.inf, 8.0, 4.0, 2.0, 1.0, 0.5)
DRAWS, K, SAMPLES = 5, 10, 1000

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """`data`: that folder alone. Raises DataError if there are no data."""
    params = Params.load(Path("params.yaml"))
    delta = params.finetune.privacy.delta
    found = dict(worlds(data, params))
    rows: Json = {}
    with tqdm(total=len(found) * (len(EPSILONS) + 1), desc="privacy", unit="budget", disable=None) as bar:
        for name, (prepared, vectors) in found.items():
            court = Court(prepared, vectors, params.seed)
            rows[f"{name}: off"] = court.off()
            bar.update()
            for epsilon in EPSILONS:
                rows[f"{name}: {_label(epsilon)}"] = court.private(Budget(epsilon, delta))
                bar.update()
    return {
        "name": "privacy",
        "conditions": {
            "delta": delta,
            "draws": DRAWS,
            "train_users": {name: len(np.unique(_users(one))) for name, (one, _) in found.items()},
            "test_users": {name: len(np.unique(one.test.user)) for name, (one, _) in found.items()},
        },
        "figures": rows,
        "ratios": {
            f"{name}: {_label(epsilon)} over {other}": _ratio(rows, name, epsilon, other)
            for name in found
            for other in (_label(math.inf), "off")
            for epsilon in EPSILONS[1:]
        },
        "findings": [_finding(rows, name) for name in found],
    }


def _label(epsilon: float) -> str:
    return "no noise" if math.isinf(epsilon) else f"epsilon {epsilon:g}"


def _users(prepared: Prepared) -> np.ndarray:
    return prepared.log.user[train_rows(prepared.log)]


def _ratio(rows: Json, name: str, epsilon: float, other: str) -> float | None:
    whole: float = rows[f"{name}: {other}"][HEADLINE]
    return rows[f"{name}: {_label(epsilon)}"][HEADLINE] / whole if whole else None


def _finding(rows: Json, name: str) -> str:
    lost = {epsilon: _ratio(rows, name, epsilon, _label(math.inf)) for epsilon in EPSILONS[1:]}
    told = [f"{100 * (1 - (kept or 0)):.0f} % at {epsilon:g}" for epsilon, kept in lost.items()]
    above = [key for key, row in rows.items() if row["auc_low"] > row["auc_bound"]]
    return (
        f"{name}: lost to noise, of whole users: {', '.join(told)}; "
        f"attacks surely above their bound: {', '.join(above) or 'none'}"
    )


class Court:
    """Models of one data set at its test points, and under attack."""

    def __init__(self, prepared: Prepared, vectors: np.ndarray, seed: int) -> None:
        self.prepared, self.vectors, self.seed = prepared, vectors, seed
        self.items, self.rows = len(prepared.catalogue), train_rows(prepared.log)
        self.order = tuning.frozen_order(prepared)
        self.asked = [Asked(chunk, self.items) for chunk in prepared.test.chunks(CHUNK)]
        self.x = taken(prepared.log, self.rows, self.items)
        self.space = Space.of(vectors)
        self.facts = public_facts(prepared.catalogue, None if self.space is None else self.space.vectors)
        dealt = np.random.default_rng([seed, 6]).permutation(self.x.shape[0])
        self.members, self.others, self.third = (np.sort(part) for part in np.array_split(dealt, 3))
        knows = Released.of(self._of(self.third), Budget(math.inf, 0.5)).collaborative().ease
        self.reference = self._known(knows)

    def _of(self, users: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix(self.x[users])

    def off(self) -> Json:
        """The light model; its EASE under attack."""
        log, vectors = self.prepared.log, self.vectors if self.vectors.any() else None
        model = light(log, self.rows, self.prepared.catalogue, vectors, self.seed)
        attacked = baselines.ease(self._of(self.members).astype(np.float32), LIGHT.regularisation)
        return self._row([self._gains(model)], [self._known(attacked) - self.reference], 1.0)

    def private(self, budget: Budget) -> Json:
        gains, told, kept = [], [], []
        for draw in range(1 if math.isinf(budget.epsilon) else DRAWS):
            generator = np.random.default_rng([self.seed, draw])  # a bench publishes no model
            released = Released.of(self.x, budget, self.facts, generator)
            kept.append(len(released.kept))
            model = private_model(self.prepared, released, self.space, Serving(), self.seed)
            gains.append(self._gains(model))
            attacked = Released.of(self._of(self.members), budget, self.facts, generator)
            told.append(self._known(attacked.collaborative().ease) - self.reference)
        return self._row(gains, told, most_auc(budget.mu)) | {"items_kept": float(np.mean(kept))}

    def _gains(self, model: Recommender) -> np.ndarray:
        """(test points,) nDCG@10."""
        catalogue, order = self.prepared.catalogue, self.order
        listed = [
            top_candidates(items, scores, asked.points, catalogue, order, K)[0]
            for asked, (items, scores) in zip(self.asked, model.answers(self.asked), strict=True)
        ]
        return metrics.discounted(metrics.target_rank(np.concatenate(listed), self.prepared.test.target), K)

    def _known(self, ease: ItemMatrix) -> np.ndarray:
        """(users of train,) mean EASE score of own items, from the others of them, less that of the rest."""
        own = sp.csr_matrix(self.x[:, ease.kept])
        if not len(ease.kept):
            return np.zeros(self.x.shape[0])
        scores = ease.among_kept(
            self.x.astype(np.float32)
        )  # the diagonal is zero: an item adds nothing to itself
        there, size = own.toarray() > 0, len(ease.kept)
        mine = np.where(there, scores, 0).sum(axis=1)
        count = there.sum(axis=1)
        rest = (scores.sum(axis=1) - mine) / np.maximum(size - count, 1)
        return np.asarray(mine / np.maximum(count, 1) - rest)

    def _row(self, gains: list[np.ndarray], told: list[np.ndarray], bound: float) -> Json:
        """`gains`: (test points,) of each draw; `told`: (users of train,) how well each is known."""
        of_users = metrics.group_means(np.mean(gains, axis=0), self.prepared.test.user)
        low, high = metrics.interval(metrics.user_bootstrap(of_users[:, None], SAMPLES, self.seed))
        auc, ends = self._auc(told)
        row: Json = {HEADLINE: float(of_users.mean()), "low": float(low[0]), "high": float(high[0])}
        return row | {"auc": auc, "auc_low": ends[0], "auc_high": ends[1], "auc_bound": bound}

    def _auc(self, told: list[np.ndarray]) -> tuple[float, tuple[float, float]]:
        """Mean over the draws, and its interval over members and others drawn with replacement."""
        label = np.repeat([1, 0], [len(self.members), len(self.others)])
        columns = [np.concatenate([one[self.members], one[self.others]]) for one in told]

        def mean(pick: np.ndarray) -> float:
            return float(np.mean([roc_auc_score(label[pick], column[pick]) for column in columns]))

        generator, n = np.random.default_rng([self.seed, 7]), len(self.members)
        samples = [
            mean(np.r_[generator.integers(n, size=n), n + generator.integers(len(self.others), size=n)])
            for _ in range(SAMPLES // 4)
        ]
        low, high = np.quantile(samples, [0.025, 0.975])
        return mean(np.arange(len(label))), (float(low), float(high))
