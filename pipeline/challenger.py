"""How a challenger is trained, phase by phase; what is fitted on which rows, and what validation chooses.

train:       | inner rows ...................... | later rows .. |   validation   |   test
inputs       fitted here, for the scorer's sample
scorer                                             fitted here
inputs       fitted again on all of train, which is what serves
validation   chooses epochs and settings; nothing is fitted on it
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from pipeline import baselines as b
from pipeline.content import VectorScorer
from pipeline.encoder import TextEncoder, texts_to_vectors
from pipeline.features import Inputs, Matrix, fit_inputs
from pipeline.histories import Catalogue, Log, Points, Prepared
from pipeline.model import FusionScorer, SequenceTower, one_thread
from pipeline.recommender import Recommender
from pipeline.training import (
    Candidates,
    EpochSampler,
    Run,
    ScorerTask,
    SequenceTask,
    TextTask,
    fit,
    target_ndcg,
)

log = logging.getLogger(__name__)

LATER_SHARE = 0.2  # of train's rows, the newest: the scorer's
POINTS_PER_USER = 100  # of the scorer's sample
MOST_SCORER_POINTS = 12_000
MOST_VALIDATION_POINTS = 1_500
TEXT_POINTS_PER_EPOCH = 4_096
TEXT_HALF_LIFE = 5.0
REGULARISATIONS = (100.0, 300.0, 1000.0)
SEQUENCE_EPOCHS, SEQUENCE_BATCH = 8, 32
MORE_SEQUENCE_EPOCHS = 3  # on all of train, from the weights fitted on its inner rows
SCORER_EPOCHS, SCORER_BATCH = 8, 128
HARD, RANDOM = 100, 100  # candidates of a point
VALIDATION_HARD = 300
HARD_BY = ("ease_5", "knn_5", "sequence_z", "text_5", "popularity_0.05", "categories_5")


@dataclass(frozen=True)
class Trained:
    """What `train` makes: three models over one catalogue and what the report tells of the training."""

    models: dict[str, Recommender]  # challenger, frozen_text, without_text
    encoder: TextEncoder
    frozen: np.ndarray  # (items, width) un-tuned vectors
    summary: dict[str, object]


@dataclass(frozen=True)
class Split:
    inner: np.ndarray  # (rows of the log,) bool
    full: np.ndarray
    later: Points  # what the scorer is fitted on
    validation: Points


def split(prepared: Prepared, seed: int) -> Split:
    """Inner and later rows of train, by time; equal timestamps stay together (in the later part)."""
    data = prepared.log
    full = b.train_rows(data)
    times = np.sort(data.time[full])
    cut = times[int(len(times) * (1 - LATER_SHARE))] if len(times) else 0
    later = data.successes(full & (data.time >= cut))
    generator = np.random.default_rng([seed, 1])
    later = _at_most(later, POINTS_PER_USER, MOST_SCORER_POINTS, generator)
    validation = _at_most(prepared.validation, len(data), MOST_VALIDATION_POINTS, generator)
    return Split(full & (data.time < cut), full, later, validation)


def _at_most(points: Points, per_user: int, total: int, generator: np.random.Generator) -> Points:
    """A random choice, at most `per_user` of a user and `total` in all, in the given order."""
    shuffled = generator.permutation(len(points))
    user = points.user[shuffled]
    order = np.argsort(user, kind="stable")
    start = np.flatnonzero(np.r_[True, np.diff(user[order]) != 0]) if len(user) else np.zeros(0, np.int64)
    place = np.arange(len(user)) - np.repeat(start, np.diff(np.r_[start, len(user)]))
    kept = generator.permutation(shuffled[order[place < per_user]])[:total]
    return points[np.sort(kept)]


def train(prepared: Prepared, run: Run) -> Trained:
    """All phases. The summary holds counts and epochs, no times: same seed, same bytes."""
    parts = split(prepared, run.seed)
    texts = prepared.catalogue.items["item_text"].fillna("").tolist()
    encoder = TextEncoder.load(run.settings.encoder, run.settings.max_length)
    frozen, tokens = texts_to_vectors(encoder, texts)
    summary: dict[str, object] = {
        "encoder": run.settings.encoder,
        "unknown_token_share": round(tokens.unknown_share, 4),
        "layers": len(encoder.layers),
        "trainable_layers": min(run.settings.trainable_layers, len(encoder.layers)),
        "scorer_points": len(parts.later),
        "train_rows": int(parts.full.sum()),
    }
    tuned = frozen
    if frozen.any() and run.settings.epochs and run.settings.trainable_layers:
        summary["text_epochs"] = _tune_encoder(prepared.log, run, parts, encoder, texts)
        tuned, _ = texts_to_vectors(encoder, texts)
    matrix = _choose_matrix(prepared.log, parts, prepared.catalogue)
    summary |= {"ease_regularisation": matrix.regularisation, "positives_only": matrix.positives_only}
    variants = {"challenger": tuned, "frozen_text": frozen, "without_text": None}
    models = {}
    for name, vectors in variants.items():
        usable = vectors if vectors is not None and vectors.any() else None
        models[name], figures = _fuse(prepared, run, parts, name, usable, matrix)
        summary |= {f"{name}_{key}": value for key, value in figures.items()}
    return Trained(models, encoder, frozen, summary)


def _tune_encoder(data: Log, run: Run, parts: Split, encoder: TextEncoder, texts: list[str]) -> int:
    # An item without text must not pull the others: its vector is that of an empty string, never a target.
    has_text = np.array([bool(text) for text in texts])
    points = data.successes(parts.inner & has_text[data.item])
    points = points[np.flatnonzero(points.lengths > 0)]
    if not len(points):
        return 0
    tokens = encoder.tokenize(texts)
    task = TextTask(run, encoder, tokens, points, parts.validation, TEXT_HALF_LIFE)
    sampler = EpochSampler(run, task.phase, len(points), TEXT_POINTS_PER_EPOCH)
    epochs = fit(run, task, sampler, run.settings.batch_size, run.settings.epochs)
    encoder.requires_grad_(False)
    return epochs


def _choose_matrix(data: Log, parts: Split, catalogue: Catalogue) -> Matrix:
    """By the validation nDCG@10 of EASE, with the recency half-life that the features use."""
    weights = parts.validation.weights(len(catalogue), 5)
    quality = {}
    for positives_only in (True, False) if not data.positive.all() else (False,):
        rows = parts.full & data.positive if positives_only else parts.full
        met = b.interactions(data, rows, len(catalogue))
        for value in REGULARISATIONS:
            gain = target_ndcg(b.ease(met, value).score(weights), parts.validation, 10)
            quality[Matrix(positives_only, value)] = float(gain.mean()) if len(gain) else 0.0
    return max(quality, key=lambda matrix: quality[matrix])


def _fuse(
    prepared: Prepared,
    run: Run,
    parts: Split,
    name: str,
    vectors: np.ndarray | None,
    matrix: Matrix,
) -> tuple[Recommender, dict[str, object]]:
    """Sequence tower and scorer around one kind of text vectors."""
    data, catalogue = prepared.log, prepared.catalogue
    text = None if vectors is None else VectorScorer.of(vectors).vectors
    centre = None if vectors is None else vectors[np.linalg.norm(vectors, axis=1) > 0].mean(axis=0)
    towers = _towers(data, run, parts, name, len(catalogue), text)
    inner = fit_inputs(data, parts.inner, catalogue, matrix, text, towers[0], run.seed)
    full = fit_inputs(data, parts.full, catalogue, matrix, text, towers[1], run.seed)
    features = full.features(prepared.validation[:1])[0] if len(prepared.validation) else []
    torch.manual_seed(run.seed)
    scorer = FusionScorer(len(features))
    model = Recommender(name, {"features": features}, catalogue, full, scorer, centre)
    with torch.no_grad():
        # Before it has learned anything it ranks like EASE with recent popularity behind it.
        scorer.linear.weight[0, features.index("ease_5")] = 1
        scorer.linear.weight[0, features.index("popularity_0.05")] = 0.1
    epochs = 0
    if len(parts.later) >= 2:
        generator = np.random.default_rng([run.seed, 2])
        sample = _sample(inner, parts.later, generator, HARD, RANDOM)
        against = _sample(full, parts.validation, generator, VALIDATION_HARD, 0)
        scorer.standardise(torch.from_numpy(sample.features[::4].astype(np.float32)).flatten(0, 1))
        task = ScorerTask(run, f"scorer ({name})", scorer, sample, parts.validation, against)
        sampler = EpochSampler(run, task.phase, len(sample.target))
        epochs = fit(run, task, sampler, SCORER_BATCH, SCORER_EPOCHS)
    gain = _mean_by_user(model, parts.validation)
    scorer.eval()
    return model, {"scorer_epochs": epochs, "validation_ndcg@10": gain}


def _mean_by_user(model: Recommender, points: Points) -> float | None:
    if not len(points):
        return None
    gain = np.concatenate([target_ndcg(model.score(chunk), chunk, 10) for chunk in points.chunks(64)])
    _, place = np.unique(points.user, return_inverse=True)
    return round(float((np.bincount(place, gain) / np.bincount(place)).mean()), 6)


def _tower(
    data: Log, run: Run, rows: np.ndarray, validation: Points, name: str, tower: SequenceTower, epochs: int
) -> SequenceTower:
    torch.manual_seed(run.seed)
    task = SequenceTask(run, name, tower, data, rows, validation)
    if len(task.segments):
        sampler = EpochSampler(run, name, len(task.segments))
        with one_thread():
            fit(run, task, sampler, SEQUENCE_BATCH, epochs, validate=False)
    return tower.eval()


def _towers(
    data: Log, run: Run, parts: Split, name: str, items: int, text: np.ndarray | None
) -> tuple[SequenceTower, SequenceTower]:
    """One fitted on the inner rows, and one that goes on from its weights on all of train."""
    towers = []
    for rows in (parts.inner, parts.full):
        known = np.zeros(items, bool)
        known[data.item[rows]] = True
        torch.manual_seed(run.seed)
        towers.append(SequenceTower(known, text))
    inner, full = towers
    _tower(data, run, parts.inner, parts.validation, f"sequence ({name})", inner, SEQUENCE_EPOCHS)
    weights = {key: value for key, value in inner.state_dict().items() if key != "known"}
    full.load_state_dict(weights, strict=False)
    phase = f"sequence on all of train ({name})"
    _tower(data, run, parts.full, parts.validation, phase, full, MORE_SEQUENCE_EPOCHS)
    return inner, full


def _sample(
    inputs: Inputs, points: Points, generator: np.random.Generator, hard: int, random: int
) -> Candidates:
    """The item taken, the hardest others by a mixture of the inputs, and a random share of the rest.

    Each random candidate stands for as many items as it was drawn from, so the softmax over the sample
    estimates the one over the whole catalogue (sampled softmax with importance weights).
    """
    parts = [_sample_chunk(inputs, chunk, generator, hard, random) for chunk in points.chunks(64)]
    features, log_weight, target = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Users with many points count less, though more than once: between every point and every user alike.
    weight = np.bincount(points.user)[points.user] ** -0.5
    return Candidates(features, log_weight, target, (weight / weight.mean()).astype(np.float32))


def _sample_chunk(
    inputs: Inputs, points: Points, generator: np.random.Generator, hardest: int, others: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    names, features = inputs.features(points)
    row = np.arange(len(points))[:, None]
    seen = np.zeros((len(points), inputs.items), bool)
    point, history = points.rows()
    seen[point, points.log.item[history]] = True
    hardness = sum(features[..., names.index(name)] for name in HARD_BY if name in names)
    hardness = np.where(seen, -np.inf, hardness)
    hardness[row[:, 0], points.target] = np.inf
    hard_count = min(hardest, inputs.items)
    hard = np.argpartition(-hardness, hard_count - 1, axis=1)[:, :hard_count]
    rest = ~seen
    rest[row, hard] = False
    random_count = min(others, inputs.items - hard_count)
    draw = np.where(rest, generator.random(rest.shape, dtype=np.float32), 2)
    random = np.argpartition(draw, max(random_count - 1, 0), axis=1)[:, :random_count]
    left = rest.sum(axis=1, keepdims=True)
    drawn = np.minimum(left, random_count)
    stands_for = np.log(np.maximum(left, 1) / np.maximum(drawn, 1))
    chosen = np.concatenate([hard, random], axis=1)
    log_weight = np.concatenate(
        [np.zeros(hard.shape), np.where(rest[row, random], stands_for, -1e9)], axis=1
    ).astype(np.float32)
    log_weight[seen[row, chosen]] = -1e9
    log_weight[chosen == points.target[:, None]] = 0
    target = (chosen == points.target[:, None]).argmax(axis=1)
    return features[row, chosen].astype(np.float16), log_weight, target
