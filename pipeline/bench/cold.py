"""Do cold items reach the lists at the rate at which people take them, and at which price?

In: data/prepared, or a folder like data/raw. Out: hit rates of cold targets in the full ranking, and what
they cost. Rule: of the items with at least LEAST interactions a fifth is taken out of train altogether, in
SEEDS draws. Inputs, tower and scorers are fitted on what is left, with the un-tuned encoder; epochs and the
constant for newcomers are chosen on validation, where a true newcomer is seen as well. Then every test point
is ranked, cold and warm targets mixed as they fall: by the whole model, and by its scorer of known items
alone, as it would be without any provision for newcomers. Intervals of cold figures are of a bootstrap over
items: what varies is which item is new, not who asks.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.bench.gate import load_with_vectors
from pipeline.data.histories import TRAIN, Log, Points, Prepared
from pipeline.errors import DataError
from pipeline.evaluation.metrics import discounted
from pipeline.models.challenger import choose_matrix, split
from pipeline.models.content import VectorScorer
from pipeline.models.fusing import Space, fuse
from pipeline.models.recommender import Recommender
from pipeline.models.training import Run
from pipeline.params import Params

SEEDS, SHARE, LEAST = 3, 0.2, 5
HALF_LIFE = 5.0  # of the un-tuned encoder's history, in items
SAMPLES = 1000
K, CHUNK = 10, 64

Json = dict[str, Any]


def run(data: Path | None = None) -> Json:
    """Raises DataError if there are no texts, or too few items to hold out."""
    begin = time.process_time()
    params = Params.load(Path("params.yaml"))
    prepared, vectors = load_with_vectors(data or Path("data/prepared"), params)
    if not vectors.any():
        raise DataError("data/prepared/items.parquet: item_text is empty: nothing tells newcomers apart")
    found = []
    for seed in tqdm(range(SEEDS), desc="cold", unit="draw", disable=None, leave=False):
        found.append(measure(prepared, vectors, params, seed))
    mean = {key: float(np.mean([draw[key] for draw in found])) for key in found[0]}
    return {
        "name": "cold",
        "conditions": {
            "draws": SEEDS,
            "held_out_share": SHARE,
            "items": len(prepared.catalogue),
            "test_points": len(prepared.test),
            "cold_budget": params.finetune.cold_budget,
            "cpu_seconds": time.process_time() - begin,
        },
        "figures": {f"draw_{seed}": draw for seed, draw in enumerate(found)},
        "ratios": mean,
        "findings": [
            f"cold targets found in ten: {mean['cold_hit_rate']:.3f} of them, without provision "
            f"{mean['cold_hit_rate_without']:.3f}; nDCG@10 over all points {mean['ndcg_change']:+.1%}",
            f"probability given to cold items {mean['cold_mass_fitted']:.3f} as fitted, "
            f"{mean['cold_mass']:.3f} with the constant; their true share {mean['cold_share']:.3f}",
            f"among cold items alone {mean['among_cold']:.3f}, the un-tuned encoder "
            f"{mean['among_cold_encoder']:.3f}",
        ],
    }


def measure(prepared: Prepared, vectors: np.ndarray, params: Params, seed: int) -> Json:
    """One draw: fit without the items drawn, rank the test points. Figures are means over points or users."""
    held = held_out(prepared, seed)
    known = replace(prepared, log=without_train_rows(prepared.log, held))
    space = Space.of(vectors)
    with tempfile.TemporaryDirectory() as folder:
        context = Run(params.finetune, params.seed + seed, Path(folder))
        parts = split(known, context.seed)
        matrix = choose_matrix(known.log, parts, known.catalogue)
        models, _ = fuse(known, context, parts, {"challenger": space}, matrix)
    model = models["challenger"]
    ranks = rank(model, VectorScorer.of(vectors), prepared.test)
    found = summary(ranks, prepared.test, model.inputs.statistics.count == 0, held, seed)
    shift = np.exp(model.cold_shift)
    fitted = ranks.mass / (ranks.mass + (1 - ranks.mass) * shift)  # as it was before the constant
    return found | {"cold_shift": model.cold_shift, "cold_mass_fitted": float(fitted.mean())}


def held_out(prepared: Prepared, seed: int) -> np.ndarray:
    """(items,) bool: SHARE of the items that have at least LEAST interactions in all."""
    count = np.bincount(prepared.log.item, minlength=len(prepared.catalogue))
    enough = np.flatnonzero(count >= LEAST)
    drawn = np.random.default_rng([seed, 99]).permutation(enough)[: round(SHARE * len(enough))]
    if not len(drawn):
        raise DataError(f"data/prepared: too few items with {LEAST} interactions to hold any out")
    held = np.zeros(len(count), bool)
    held[drawn] = True
    return held


def without_train_rows(log: Log, items: np.ndarray) -> Log:
    """The log without what train tells of the items of a mask."""
    kept = ~(items[log.item] & (log.window == TRAIN))
    names = ("user", "item", "time", "value", "positive", "fit", "window")
    fields = {name: getattr(log, name)[kept] for name in names}
    counts = np.bincount(fields["user"], minlength=len(log.indptr) - 1)
    return Log(**fields, indptr=np.r_[0, np.cumsum(counts)].astype(np.int64), repeats=log.repeats)


@dataclass(frozen=True)
class Ranks:
    """Of each point: the target's rank by each model, cold items among the first K, their probability."""

    whole: np.ndarray
    plain: np.ndarray  # without the scorer of newcomers
    among_cold: np.ndarray  # by the whole model, among cold items alone
    encoder: np.ndarray  # likewise, by the un-tuned encoder
    slots: np.ndarray
    mass: np.ndarray


def rank(model: Recommender, encoder: VectorScorer, points: Points) -> Ranks:
    """Ties count against the target."""
    plain = replace(model, cold_scorer=None)
    cold = model.inputs.statistics.count == 0
    parts = []
    for chunk in points.chunks(CHUNK):
        columns = model.inputs.columns(chunk)
        scores = _masked(model.score_columns(columns, len(chunk)), chunk)
        before = _masked(plain.score_columns(columns, len(chunk)), chunk)
        text = np.nan_to_num(encoder.score(chunk.weights(len(cold), HALF_LIFE)), nan=-2)
        top = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        unnormalised = np.exp(scores - scores.max(axis=1, keepdims=True))
        parts.append(
            (
                _rank(scores, chunk),
                _rank(before, chunk),
                _rank(np.where(cold, scores, -np.inf), chunk),
                _rank(np.where(cold, _masked(text, chunk), -np.inf), chunk),
                cold[top].sum(axis=1),
                (unnormalised @ cold) / unnormalised.sum(axis=1),
            )
        )
    return Ranks(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _masked(scores: np.ndarray, points: Points) -> np.ndarray:
    """As float64, -inf at the items that may not be listed."""
    scores = scores.astype(np.float64)
    scores[points.excluded()] = -np.inf
    return scores


def _rank(scores: np.ndarray, points: Points) -> np.ndarray:
    return (scores >= scores[np.arange(len(points)), points.target][:, None]).sum(axis=1)


def summary(ranks: Ranks, points: Points, cold: np.ndarray, held: np.ndarray, seed: int) -> Json:
    """`cold`: (items,) not in train; those not `held` out are true newcomers."""
    target, place = points.target, np.unique(points.user, return_inverse=True)[1]
    is_cold = cold[target]
    true = is_cold & ~held[target]
    low, high = item_interval(ranks.whole[is_cold] <= K, target[is_cold], seed)
    quality, before = (_ndcg(found, place) for found in (ranks.whole, ranks.plain))
    hits = {"cold": is_cold, "true_newcomers": true}
    return {
        "cold_hit_rate": share(ranks.whole[is_cold] <= K),
        "cold_hit_rate_low": low,
        "cold_hit_rate_high": high,
        "cold_hit_rate_without": share(ranks.plain[is_cold] <= K),
        "true_newcomers_hit_rate": share(ranks.whole[true] <= K),
        "true_newcomers_hit_rate_without": share(ranks.plain[true] <= K),
        "ndcg": quality,
        "ndcg_without": before,
        "ndcg_change": quality / before - 1 if before else 0.0,
        "cold_mass": float(ranks.mass.mean()),
        "cold_share": float(is_cold.mean()),
        "cold_slots_of_10": float(ranks.slots.mean()),
        "among_cold": share(ranks.among_cold[is_cold] <= K),
        "among_cold_encoder": share(ranks.encoder[is_cold] <= K),
        **{f"{name}_points": int(mask.sum()) for name, mask in hits.items()},
    }


def _ndcg(ranks: np.ndarray, place: np.ndarray) -> float:
    """nDCG@10, users' mean; `place`: (points,) index of the user."""
    gain = discounted(ranks, K)
    return float((np.bincount(place, gain) / np.bincount(place)).mean())


def share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def item_interval(hits: np.ndarray, item: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap over items of the mean over points."""
    if not len(hits):
        return 0.0, 0.0
    place = np.unique(item, return_inverse=True)[1]
    count, total = np.bincount(place), np.bincount(place, hits)
    drawn = np.random.default_rng(seed).multinomial(len(count), np.full(len(count), 1 / len(count)), SAMPLES)
    low, high = np.quantile((drawn @ total) / np.maximum(drawn @ count, 1), [0.025, 0.975])
    return float(low), float(high)
