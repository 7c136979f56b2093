"""BPR of `implicit` (Rendle et al. 2009) as a peer that ranks from live histories."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from pipeline.bench._factors import FactorModel
from pipeline.data.histories import Prepared
from pipeline.evaluation.tuning import DISLIKED, HALF_LIVES, Prepares, Settings
from pipeline.models import baselines

GRID: dict[str, Sequence[Any]] = {
    "half_life": HALF_LIVES,
    "factors": (64, 32, 128),
    "learning_rate": (0.05, 0.02, 0.1),
    "regularisation": (0.01, 0.003, 0.03),
    "iterations": (100, 50, 200),
    "positives_only": (True, False),
    "disliked_weight": DISLIKED,
}


def fit(
    matrix: sp.csr_matrix,
    factors: int,
    learning_rate: float,
    regularisation: float,
    iterations: int,
    seed: int,
) -> FactorModel:
    """One thread, so that the same seed gives the same factors."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=factors,
        learning_rate=learning_rate,
        regularization=regularisation,
        iterations=iterations,
        random_state=seed,
        num_threads=1,
    )
    model.fit(matrix.astype(np.float32), show_progress=False)
    known = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
    vectors, users = np.asarray(model.item_factors), np.asarray(model.user_factors)
    # implicit's last column is the bias
    return FactorModel.of(matrix, users[:, :-1], vectors[:, :-1], vectors[:, -1], known)


def bpr(prepared: Prepared, seed: int) -> Prepares:
    """What pipeline/evaluation/tuning.py wants of a baseline."""
    items = len(prepared.catalogue)

    @lru_cache(maxsize=16)
    def fitted(positives_only: bool, *settings: float) -> FactorModel:
        matrix = baselines.interactions(
            prepared.log, baselines.train_rows(prepared.log, positives_only), items
        )
        factors, learning_rate, regularisation, iterations = settings
        return fit(matrix, int(factors), learning_rate, regularisation, int(iterations), seed)

    def build(settings: Settings) -> baselines.Scorer:
        names = ("positives_only", "factors", "learning_rate", "regularisation", "iterations")
        model = fitted(*(settings[name] for name in names))
        return baselines.HistoryScorer(
            "bpr", items, model.score, settings["half_life"], settings["disliked_weight"]
        )

    return build, GRID
