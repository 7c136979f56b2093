"""LightFM (Kula 2015) with the WARP loss (Weston et al. 2011) as a peer that ranks from live histories.

An item's vector is the sum of those of its features: itself, its categories, the words of its title (the
mean, which LightFM's own Dataset makes of it, does worse on validation: docs/log.md). It is fitted on train's
items alone, in the peers' environment (pipeline/bench/_lightfm_peer.py); an item that train never saw is not
a feature of its own, but has a vector as soon as it shares a category or a word.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from pipeline.bench import _peers
from pipeline.bench._factors import FactorModel
from pipeline.data import tables
from pipeline.data.histories import Catalogue, Prepared
from pipeline.evaluation.tuning import DISLIKED, HALF_LIVES, Prepares, Settings
from pipeline.models import baselines
from pipeline.models.content import category_matrix

SCRIPT = Path(__file__).with_name("_lightfm_peer.py")
SHARED = (
    2  # of train's items that have a category or a word; what one item has says what the item itself says
)
EPOCHS = (80, 40, 20, 10)  # one fit gives them all
# Begins where MovieLens 100K's validation was best: from elsewhere the descent ended below (docs/log.md).
GRID: dict[str, Sequence[Any]] = {
    "half_life": HALF_LIVES,
    "epochs": EPOCHS,
    "features": ("none", "categories", "words"),  # beside the item itself; words come with categories
    "factors": (32, 64, 128),
    "learning_rate": (0.02, 0.05, 0.1),
    "regularisation": (1e-5, 0.0, 1e-4),
    "positives_only": (True, False),
    "disliked_weight": DISLIKED,
}


def word_matrix(catalogue: Catalogue) -> sp.csr_matrix:
    """(items, words) float32, 1 where a title has a word; no column if there are none."""
    if tables.TITLE not in catalogue.items:
        return sp.csr_matrix((len(catalogue), 0), dtype=np.float32)
    words = catalogue.items[tables.TITLE].fillna("").astype("str").str.lower().str.findall(r"\w+")
    return category_matrix(replace(catalogue, items=pd.DataFrame({tables.CATEGORIES: words})))


def feature_matrix(catalogue: Catalogue, known: np.ndarray, which: str) -> sp.csr_matrix:
    """(items, features) float32, 1 where an item has a feature.

    `known` (items,) bool: in train, hence features of their own; `which`: as in GRID.
    """
    parts = [sp.identity(len(catalogue), np.float32, "csr")[:, np.flatnonzero(known)]]
    if which != "none":
        parts.append(category_matrix(catalogue))
    if which == "words":
        parts.append(word_matrix(catalogue))
    for place, part in enumerate(parts[1:], 1):
        parts[place] = part[:, np.flatnonzero(part[known].getnnz(axis=0) >= SHARED)]
    return sp.csr_matrix(sp.hstack(parts), dtype=np.float32)


def fit(matrix: sp.csr_matrix, features: sp.csr_matrix, task: dict[str, Any]) -> dict[int, FactorModel]:
    """(users, items) and (items, features) -> the model after each of `task`'s epochs. Raises DataError."""
    known = features.getnnz(axis=1) > 0
    there = matrix[np.diff(matrix.indptr) > 0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sp.save_npz(folder / "matrix.npz", there)
        sp.save_npz(folder / "features.npz", features)
        (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
        _peers.run(_peers.python(), SCRIPT, folder, "lightfm")
        models = {}
        for epochs in task["epochs"]:
            with np.load(folder / f"after_{epochs}.npz") as made:
                models[epochs] = FactorModel.of(there, made["users"], made["vectors"], made["bias"], known)
    return models


def lightfm(prepared: Prepared, seed: int) -> Prepares:
    """What pipeline/evaluation/tuning.py wants of a baseline; the peers' environment has to be there."""
    catalogue = prepared.catalogue

    @lru_cache(maxsize=8)
    def fitted(positives_only: bool, features: str, *settings: float) -> dict[int, FactorModel]:
        matrix = baselines.interactions(
            prepared.log, baselines.train_rows(prepared.log, positives_only), len(catalogue)
        )
        known = matrix.getnnz(axis=0) > 0
        task: dict[str, Any] = {"epochs": sorted(EPOCHS), "seed": seed}
        task |= zip(("factors", "learning_rate", "regularisation"), settings, strict=True)
        return fit(matrix, feature_matrix(catalogue, known, features), task)

    def build(settings: Settings) -> baselines.Scorer:
        names = ("positives_only", "features", "factors", "learning_rate", "regularisation")
        model = fitted(*(settings[name] for name in names))[settings["epochs"]]
        half_life, disliked = settings["half_life"], settings["disliked_weight"]
        return baselines.HistoryScorer("lightfm", len(catalogue), model.score, half_life, disliked)

    return build, GRID
