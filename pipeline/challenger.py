"""How a challenger is trained, phase by phase; what is fitted on which rows, and what validation chooses.

train:       | inner rows ...................... | later rows .. |   validation   |   test
inputs       fitted here, for the scorer's sample
scorer                                             fitted here
inputs       fitted again on all of train, which is what serves
validation   chooses epochs and settings; nothing is fitted on it
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from pipeline import baselines as b
from pipeline.content import VectorScorer
from pipeline.encoder import TextEncoder, tokenize
from pipeline.features import Asked, Columns, Inputs, Matrix, fit_inputs
from pipeline.histories import Catalogue, Log, Points, Prepared
from pipeline.model import FusionScorer, SequenceTower, one_thread
from pipeline.recommender import Recommender
from pipeline.tasks import Candidates, ScorerTask, SequenceTask
from pipeline.text_task import Texts, TextTask, frozen_layers
from pipeline.training import EpochSampler, Run, fit, target_ndcg

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
CHUNK = 64  # points whose features are in memory at a time
VALIDATION_HARD = 300
HARD_BY = ("ease_5", "knn_5", "sequence_z", "text_5", "popularity_0.05", "categories_5")


@dataclass(frozen=True)
class Trained:
    """What `train` makes: three models over one catalogue and what the report tells of the training."""

    models: dict[str, Recommender]  # challenger; frozen_text, without_text if it is no refresh
    encoder: TextEncoder | None  # None: a refresh of a model without one
    frozen: np.ndarray | None  # (items, width) un-tuned vectors; None in a refresh
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


def train(prepared: Prepared, run: Run, champion: Recommender | None = None) -> Trained:
    """All phases. The summary holds counts and epochs, no times: same seed, same bytes.

    With `champion` (bound to this catalogue) a refresh: its text vectors stay, of new items its encoder makes
    them, everything else is fitted anew; no ablations.
    """
    parts = split(prepared, run.seed)
    summary: dict[str, object] = {"scorer_points": len(parts.later), "train_rows": int(parts.full.sum())}
    frozen = None
    if champion is not None:
        encoder, own = champion.encoder(), champion.inputs.text
        spaces = {"challenger": None if own is None else Space(own, champion.centre)}
        summary |= {"refresh_of": champion.version, "encoder": champion.card["training"].get("encoder")}
    else:
        encoder, frozen, tuned, told = _text_vectors(prepared, run, parts)
        spaces = {"challenger": Space.of(tuned), "frozen_text": Space.of(frozen), "without_text": None}
        summary |= told
    matrix = _choose_matrix(prepared.log, parts, prepared.catalogue)
    summary |= {"ease_regularisation": matrix.regularisation, "positives_only": matrix.positives_only}
    models, figures = _fuse(prepared, run, parts, spaces, matrix)
    return Trained(models, encoder, frozen, summary | figures)


@dataclass(frozen=True)
class Space:
    """Item vectors in which text is compared."""

    vectors: np.ndarray  # (items, width) float32 centred unit vectors; zero rows: no text
    centre: np.ndarray | None  # (width,) what was subtracted

    @classmethod
    def of(cls, vectors: np.ndarray) -> Space | None:
        """None where no item has a text."""
        there = vectors.any(axis=1)
        return cls(VectorScorer.of(vectors).vectors, vectors[there].mean(axis=0)) if there.any() else None


def _text_vectors(
    prepared: Prepared, run: Run, parts: Split
) -> tuple[TextEncoder, np.ndarray, np.ndarray, dict[str, object]]:
    """(tuned encoder, (items, width) vectors before, after, what the summary says of it)."""
    texts = prepared.catalogue.items["item_text"].fillna("").tolist()
    empty = np.array([not text for text in texts], bool)
    encoder = TextEncoder.load(run.settings.encoder, run.settings.max_length)
    tokens, below = tokenize(encoder, texts), frozen_layers(encoder, run.settings)
    trains = run.settings.epochs > 0 and below < len(encoder.layers)
    file = run.folder / "hidden.npy"
    hidden = encoder.lower_activations(tokens, below, file) if trains and below else None

    def encode() -> np.ndarray:
        with torch.no_grad():
            vectors = encoder.encode(tokens, None, hidden, below).cpu().numpy()
        vectors[empty] = 0
        return vectors

    frozen = tuned = encode()
    told: dict[str, object] = {
        "encoder": run.settings.encoder,
        "unknown_token_share": round(tokens.unknown_share, 4),
        "layers": len(encoder.layers),
        "trainable_layers": len(encoder.layers) - below,
    }
    # An item without text must not pull the others: its vector is that of an empty string, never a target.
    points = prepared.log.successes(parts.inner & ~empty[prepared.log.item])
    points = points[np.flatnonzero(points.lengths > 0)]
    if trains and len(points) and not empty.all():
        texts_ = Texts(tokens, hidden, frozen)
        task = TextTask(run, encoder, texts_, points, parts.validation, TEXT_HALF_LIFE)
        sampler = EpochSampler(run, task.phase, len(points), TEXT_POINTS_PER_EPOCH)
        told["text_epochs"] = fit(run, task, sampler, run.settings.batch_size, run.settings.epochs)
        encoder.settle()
        told["item_reuse"] = round(task.item_reuse, 1)
        tuned = encode()
    return encoder, frozen, tuned, told


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
    prepared: Prepared, run: Run, parts: Split, spaces: dict[str, Space | None], matrix: Matrix
) -> tuple[dict[str, Recommender], dict[str, object]]:
    """Sequence tower and scorer around each kind of text vectors, and their figures.

    What does not depend on the text is fitted, and computed for every point, once for all of them.
    """
    data, catalogue = prepared.log, prepared.catalogue
    inner = fit_inputs(data, parts.inner, catalogue, matrix, run.seed)
    full = fit_inputs(data, parts.full, catalogue, matrix, run.seed)
    early: dict[str, Inputs] = {}
    late: dict[str, Inputs] = {}
    for name, space in spaces.items():
        text = None if space is None else space.vectors
        towers = _towers(data, run, parts, name, len(catalogue), text)
        early[name] = replace(inner, text=text, sequence=towers[0])
        late[name] = replace(full, text=text, sequence=towers[1])
    samples: dict[str, Candidates] = {}
    against: dict[str, Candidates] = {}
    if len(parts.later) >= 2 and len(parts.validation):
        generator = np.random.default_rng([run.seed, 2])
        samples = _samples(early, parts.later, generator, HARD, RANDOM)
        against = _samples(late, parts.validation, generator, VALIDATION_HARD, 0)
    models, figures = {}, {}
    for name, inputs in late.items():
        space, features = spaces[name], list(inputs.columns(prepared.validation[:1]))
        scorer, epochs = _scorer(run, parts, name, features, samples.pop(name, None), against.get(name))
        centre = None if space is None else space.centre
        models[name] = Recommender(name, {"features": features}, catalogue, inputs, scorer, centre)
        figures[f"{name}_scorer_epochs"] = epochs
    gains = _validation_gains(models, parts.validation)
    return models, figures | {f"{name}_validation_ndcg@10": gain for name, gain in gains.items()}


def _scorer(
    run: Run,
    parts: Split,
    name: str,
    features: list[str],
    sample: Candidates | None,
    against: Candidates | None,
) -> tuple[FusionScorer, int]:
    torch.manual_seed(run.seed)
    scorer = FusionScorer(len(features))
    with torch.no_grad():
        # Before it has learned anything it ranks like EASE with recent popularity behind it.
        scorer.linear.weight[0, features.index("ease_5")] = 1
        scorer.linear.weight[0, features.index("popularity_0.05")] = 0.1
    epochs = 0
    if sample is not None and against is not None:
        scorer.standardise(torch.from_numpy(sample.features[::4].astype(np.float32)).flatten(0, 1))
        task = ScorerTask(run, f"scorer ({name})", scorer, sample, parts.validation, against)
        sampler = EpochSampler(run, task.phase, len(sample.target))
        epochs = fit(run, task, sampler, SCORER_BATCH, SCORER_EPOCHS)
    return scorer.eval(), epochs


def _validation_gains(models: dict[str, Recommender], points: Points) -> dict[str, float | None]:
    """nDCG@10 over whole catalogues, mean over users."""
    if not len(points):
        return dict.fromkeys(models)
    gains: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for chunk in points.chunks(CHUNK):
        for name, columns in _each({name: model.inputs for name, model in models.items()}, chunk):
            scores = models[name].score_columns(columns, len(chunk))
            gains[name].append(target_ndcg(scores, chunk, 10))
    _, place = np.unique(points.user, return_inverse=True)
    return {
        name: round(float((np.bincount(place, np.concatenate(gain)) / np.bincount(place)).mean()), 6)
        for name, gain in gains.items()
    }


def _each(variants: Mapping[str, Inputs], points: Points) -> Iterator[tuple[str, Columns]]:
    """The features of each variant of one fit; those that they share are computed once."""
    any_inputs = next(iter(variants.values()))
    asked = Asked.of(points, any_inputs.items)
    shared = any_inputs.shared(asked)
    for name, inputs in variants.items():
        yield name, shared | inputs.own(asked)


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


def _samples(
    variants: Mapping[str, Inputs], points: Points, generator: np.random.Generator, hard: int, random: int
) -> dict[str, Candidates]:
    """The item taken, the hardest others by a mixture of a variant's inputs, and a random share of the rest.

    Each random candidate stands for as many items as it was drawn from, so the softmax over the sample
    estimates the one over the whole catalogue (sampled softmax with importance weights).
    """
    # Users with many points count less, though more than once: between every point and every user alike.
    weight = np.bincount(points.user)[points.user] ** -0.5
    weight = (weight / weight.mean()).astype(np.float32)
    items = next(iter(variants.values())).items
    found: dict[str, Candidates] = {}
    for begin in range(0, len(points), CHUNK):
        rows = slice(begin, begin + CHUNK)
        draw = generator.random((len(points.user[rows]), items), dtype=np.float32)
        for name, columns in _each(variants, points[rows]):
            parts = _sample_chunk(columns, points[rows], draw, hard, random)
            if name not in found:  # whole at once: parts put together at the end would need twice the memory
                whole = [np.empty((len(points), *part.shape[1:]), part.dtype) for part in parts]
                found[name] = Candidates(whole[0], whole[1], whole[2], weight)
            made = found[name]
            made.features[rows], made.log_weight[rows], made.target[rows] = parts
    return found


def _sample_chunk(
    columns: Columns, points: Points, draw: np.ndarray, hardest: int, others: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points, candidates, features) float16; of each candidate the log weight; place of the target."""
    items = draw.shape[1]
    row = np.arange(len(points))[:, None]
    seen = np.zeros((len(points), items), bool)
    point, history = points.rows()
    seen[point, points.log.item[history]] = True
    hardness = sum(columns[name] for name in HARD_BY if name in columns)
    hardness = np.where(seen, -np.inf, hardness)
    hardness[row[:, 0], points.target] = np.inf
    hard_count = min(hardest, items)
    hard = np.argpartition(-hardness, hard_count - 1, axis=1)[:, :hard_count]
    rest = ~seen
    rest[row, hard] = False
    random_count = min(others, items - hard_count)
    draw = np.where(rest, draw, 2)
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
    features = np.empty((*chosen.shape, len(columns)), np.float16)
    for place, column in enumerate(columns.values()):
        features[..., place] = np.broadcast_to(column, draw.shape)[row, chosen]
    return features, log_weight, target
