"""Silos that share no rows against one that has all: how far apart they end, and what went over the wire.

In: data/prepared, or a folder like data/raw; without one also the embedded sets. Out: for two and four silos
of train's users, dealt at random, each a process: the greatest difference of a weight of EASE, and of the
sums of a private model (pipeline/models/private.py, without noise), to those fitted on all rows; nDCG@10 at
the test points of a head over frozen texts (pipeline/federated/head.py) learned by federated averaging, with
95 % intervals (users drawn with replacement), and what it is less that of one silo with all rows; megabytes
over the wire. The head's settings were chosen on MovieLens 100K's validation, with one silo.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from tqdm import tqdm

from pipeline.bench.signals import worlds
from pipeline.data.histories import Points, Prepared
from pipeline.evaluation import metrics
from pipeline.evaluation.figures import HEADLINE
from pipeline.federated import collaborative, head
from pipeline.federated.collaborative import Taken
from pipeline.federated.head import TextHead, averaged, logits
from pipeline.federated.wire import Server, silos
from pipeline.models import baselines
from pipeline.models.baselines import train_rows
from pipeline.models.private import Budget, Released, taken
from pipeline.models.ranking import target_ndcg
from pipeline.models.text import Space
from pipeline.params import Params
from pipeline.training.recipe import LIGHT

OWN = Path("data/prepared")
SILOS, SAMPLES, CHUNK = (2, 4), 1000, 256
BARE = Budget(math.inf, 0.5)

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """`data`: that folder alone. Raises DataError if there are no data, or a silo has too few users."""
    params = Params.load(Path("params.yaml"))
    rows: Json = {}
    for name, (prepared, vectors) in worlds(data, params):
        of_world = _of_world(prepared, vectors, params.seed)
        rows |= {f"{name}: {label}": row for label, row in of_world.items()}
    parts = {name: row for name, row in rows.items() if "ease_difference" in row}
    return {
        "name": "federated",
        "conditions": {"rounds": head.ROUNDS, "points_a_round": head.MOST_POINTS, "silos": list(SILOS)},
        "figures": rows,
        "ratios": {name: row["over_pooled"] for name, row in parts.items()},
        "findings": [
            f"greatest difference of a weight of EASE {_most(parts, 'ease_difference'):.1e}, "
            f"of a private sum {_most(parts, 'sums_difference'):.1e}"
        ],
    }


def _most(rows: Json, key: str) -> float:
    return max(row[key] for row in rows.values())


def _of_world(prepared: Prepared, vectors: np.ndarray, seed: int) -> Json:
    space, rows = Space.of(vectors), train_rows(prepared.log)
    texts = None if space is None else np.ascontiguousarray(space.vectors)
    x = taken(prepared.log, rows, len(prepared.catalogue))
    points = prepared.log.successes(rows)
    points = points[np.flatnonzero(points.lengths > 0)]
    found: Json = {}
    gains: dict[int, np.ndarray] = {}
    for number in tqdm((1, *SILOS), desc="federated", unit="fit", disable=None, leave=False):
        dealt = np.random.default_rng([seed, 8]).permutation(int(prepared.log.user.max()) + 1) % number
        row: Json = {}
        if number > 1:
            row |= _differences(x, number, seed)
        if texts is not None:
            makers = [
                partial(TextHead, points[dealt[points.user] == part], texts, seed) for part in range(number)
            ]
            with silos(makers) as server:
                weights = averaged(server, texts.shape[1])
            gains[number] = _gains(prepared.test, texts, weights)
            row |= _quality(gains, number, prepared.test.user, seed)
            row["head_mb"] = _megabytes(server)
        found[f"{number} silos" if number > 1 else "pooled"] = row
    return found


def _differences(x: sp.csr_matrix, number: int, seed: int) -> Json:
    """Of two ways to the same sums."""
    dealt = np.random.default_rng([seed, 9]).permutation(x.shape[0]) % number
    makers = [partial(Taken, sp.csr_matrix(x[dealt == part])) for part in range(number)]
    with silos(makers) as server:
        ease = collaborative.ease(server, LIGHT.regularisation)
        released = collaborative.released(server, BARE)
    pooled, at_once = baselines.ease(x.astype(np.float32), LIGHT.regularisation), Released.of(x, BARE)
    return {
        "ease_difference": float(np.abs(ease.matrix - pooled.matrix).max()),
        "sums_difference": float(np.abs(released.pairs - at_once.pairs).max()),
        "sums_mb": _megabytes(server),
    }


def _gains(points: Points, texts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(points,) nDCG@10 of the head alone."""
    vectors, of_head = torch.from_numpy(texts), torch.from_numpy(weights)
    with torch.no_grad():
        parts = [
            target_ndcg(logits(chunk, vectors, of_head).numpy(), chunk, 10) for chunk in points.chunks(CHUNK)
        ]
    return np.concatenate(parts)


def _quality(gains: dict[int, np.ndarray], number: int, user: np.ndarray, seed: int) -> Json:
    def ends(values: np.ndarray) -> tuple[float, float, float]:
        of_users = metrics.group_means(values, user)
        low, high = metrics.interval(metrics.user_bootstrap(of_users[:, None], SAMPLES, seed))
        return float(of_users.mean()), float(low[0]), float(high[0])

    row: Json = dict(zip((HEADLINE, "low", "high"), ends(gains[number]), strict=True))
    if number > 1:
        names = ("less_pooled", "less_pooled_low", "less_pooled_high")
        row |= dict(zip(names, ends(gains[number] - gains[1]), strict=True))
        pooled = ends(gains[1])[0]
        row["over_pooled"] = row[HEADLINE] / pooled if pooled else None
    return row


def _megabytes(server: Server) -> float:
    return round(sum(map(len, server.seen)) / 1e6, 2)
