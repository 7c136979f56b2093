"""How a challenger is trained, phase by phase; what is fitted on which rows, and what validation chooses.

train:       | inner rows ...................... | later rows .. |   validation   |   test
inputs       fitted here, for the scorer's sample
scorer                                             fitted here
inputs       fitted again on all of train, which is what serves
validation   chooses epochs and settings; nothing is fitted on it
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from pipeline.data.histories import Catalogue, Log, Points, Prepared
from pipeline.errors import ConfigError
from pipeline.models import baselines as b
from pipeline.models.encoder import TextEncoder, tokenize
from pipeline.models.features import Matrix
from pipeline.models.fusing import Space, Split, fuse
from pipeline.models.recommender import Recommender
from pipeline.models.text_task import Texts, TextTask, frozen_layers
from pipeline.models.training import Batches, Run, fit, is_out_of_memory, target_ndcg
from pipeline.params import Finetune

log = logging.getLogger(__name__)

LATER_SHARE = 0.2  # of train's rows, the newest: the scorer's
POINTS_PER_USER = 100  # of the scorer's sample
MOST_SCORER_POINTS = 12_000
MOST_VALIDATION_POINTS = 1_500
FEWEST_NEWER_POINTS = 1_000  # than what a champion was fitted on, for a refresh to build on it
TEXT_POINTS_PER_EPOCH = 4_096
TEXT_HALF_LIFE = 5.0
REGULARISATIONS = (100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Trained:
    """What `train` makes: three models over one catalogue and what the report tells of the training."""

    models: dict[str, Recommender]  # challenger; frozen_text, without_text if it is no refresh
    encoder: TextEncoder | None  # None: a refresh of a model without one
    frozen: np.ndarray | None  # (items, width) un-tuned vectors; None in a refresh
    summary: dict[str, object]


def split(prepared: Prepared, seed: int, cut: int | None = None) -> Split:
    """Inner and later rows of train, by time; equal timestamps stay together (in the later part).

    `cut`: the first moment of the later part, in microseconds; else it is the newest LATER_SHARE of the rows.
    """
    data = prepared.log
    full = b.train_rows(data)
    if cut is None:
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


def train(
    prepared: Prepared, run: Run, champion: Recommender | None = None, ablations: bool = True
) -> Trained:
    """All phases. The summary holds counts and epochs, no times: same seed, same bytes.

    With `champion` (bound to this catalogue) a refresh: its text vectors stay, of new items its encoder makes
    them, everything else is fitted anew; no ablations. Where enough points are later than what it was fitted
    on, they are the later rows, its inputs serve as those of the inner ones, and tower and scorer go on from
    its own: fitting all of these again is what a training costs besides the encoder.
    """
    parts, before = split(prepared, run.seed), None
    if champion is not None:
        newer = split(prepared, run.seed, _after(champion.card["train_end"]))
        if len(newer.later) >= FEWEST_NEWER_POINTS:
            parts, before = newer, champion
    summary: dict[str, object] = {"scorer_points": len(parts.later), "train_rows": int(parts.full.sum())}
    frozen = None
    if champion is not None:
        encoder, own = champion.encoder(), champion.inputs.text
        spaces = {"challenger": None if own is None else Space(own, champion.centre)}
        summary |= {"refresh_of": champion.version, "encoder": champion.card["training"].get("encoder")}
    else:
        encoder, frozen, tuned, told = _text_vectors(prepared, run, parts)
        spaces = {"challenger": Space.of(tuned)}
        if ablations:
            spaces |= {"frozen_text": Space.of(frozen), "without_text": None}
        summary |= told
    matrix = choose_matrix(prepared.log, parts, prepared.catalogue)
    summary |= {"ease_regularisation": matrix.regularisation, "positives_only": matrix.positives_only}
    models, figures = fuse(prepared, run, parts, spaces, matrix, before)
    return Trained(models, encoder, frozen, summary | figures)


def _after(moment: str) -> int:
    """Microseconds since 1970, of the moment behind this one."""
    return pd.Timestamp(moment).value // 1000 + 1


def _text_vectors(
    prepared: Prepared, run: Run, parts: Split
) -> tuple[TextEncoder, np.ndarray, np.ndarray, dict[str, object]]:
    """(tuned encoder, (items, width) vectors before, after, what the summary says of it)."""
    texts = prepared.catalogue.items["item_text"].fillna("").tolist()
    empty = np.array([not text for text in texts], bool)
    encoder = TextEncoder.load(run.settings.encoder, run.settings.max_length)
    tokens, below = tokenize(encoder, texts), frozen_layers(encoder, run.settings)
    # An item without text must not pull the others: its vector is that of an empty string, never a target.
    points = prepared.log.successes(parts.inner & ~empty[prepared.log.item])
    points = points[np.flatnonzero(points.lengths > 0)]
    untrained = _nothing_to_train(run.settings, bool(empty.all()), len(points))
    file = run.folder / "hidden.npy"
    hidden = encoder.lower_activations(tokens, below, file) if below and not untrained else None

    def encode() -> np.ndarray:
        with torch.no_grad():
            vectors = encoder.encode(tokens, None, hidden, below).cpu().numpy()
        vectors[empty] = 0
        return vectors

    begin = time.perf_counter()
    frozen = tuned = encode()
    a_text = (time.perf_counter() - begin) / max(1, len(texts))
    told: dict[str, object] = {
        "encoder": run.settings.encoder,
        "unknown_token_share": round(tokens.unknown_share, 4),
        "layers": len(encoder.layers),
        "trainable_layers": 0 if untrained else len(encoder.layers) - below,
    }
    if untrained:
        told["not_fine_tuned"] = untrained
        log.info("text: %s: nothing is trained: %s", run.settings.encoder, untrained)
    else:
        told |= _fine_tune(run, encoder, Texts(tokens, hidden, frozen), points, parts.validation, a_text)
        tuned = encode()
    return encoder, frozen, tuned, told


def _fine_tune(
    run: Run, encoder: TextEncoder, texts: Texts, points: Points, validation: Points, a_text: float
) -> dict[str, object]:
    """Leaves the best weights in the encoder. Raises ConfigError with what fits where memory ends."""
    task = TextTask(run, encoder, texts, points, validation, TEXT_HALF_LIFE)
    layers, size = len(encoder.layers), run.settings.batch_size
    log.info("%s", _announcement(run.settings, layers, len(texts.tokens), len(points), a_text))
    batches = Batches(run, task.phase, len(points), size, TEXT_POINTS_PER_EPOCH)
    try:
        epochs = fit(run, task, batches, run.settings.epochs, processes=True)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(_too_large(task, size)) from None
    encoder.settle()
    return {"text_epochs": epochs, "item_reuse": round(task.item_reuse, 1)}


def _nothing_to_train(s: Finetune, no_text: bool, points: int) -> str:
    """Why the encoder stays as it came; empty if it is trained."""
    if s.epochs == 0 or s.trainable_layers == 0:
        return f"finetune.{'epochs' if s.epochs == 0 else 'trainable_layers'} is 0"
    if no_text:
        return "no item has a text"
    return "" if points else "no success in train is of an item with a text and has a history"


def _too_large(task: TextTask, size: int) -> str:
    """Names what fits: the greatest half of a half of the batch size whose step can be made."""
    fits = size // 2
    while fits >= 2 and not task.can_step(fits):
        fits //= 2
    told = f"params.yaml: finetune.batch_size: out of memory at {size}; "
    if fits >= 2:
        return f"{told}{fits} fits"
    layers = len(task.encoder.layers) - task.frozen_layers
    return (
        f"{told}no other fits: set finetune.trainable_layers below {layers}, finetune.lora_rank to 8, or "
        "finetune.encoder to a smaller one"
    )


def _announcement(s: Finetune, layers: int, texts: int, points: int, a_text: float) -> str:
    """What will be trained, and roughly for how long; `a_text`: seconds that encoding one text just took.

    Forward and backward together cost three times the forward pass.
    """
    steps = -(-min(points, TEXT_POINTS_PER_EPOCH) // s.batch_size) * s.epochs
    encoded = s.encode_per_step if s.cache_steps else min(texts, s.batch_size * (TextTask.HISTORY + 1))
    seconds = a_text * (3 * steps * encoded + (s.epochs + 1) * texts)
    trained = min(layers, s.trainable_layers)
    kind = "" if s.lora_rank is None else f" by corrections of rank {s.lora_rank}"
    return (
        f"text: {s.encoder}: {trained} of {layers} layers trained{kind}, {layers - trained} frozen; "
        f"{texts:,} items, {steps} steps of {s.batch_size} points, about {seconds:.0f} s"
    )


def choose_matrix(data: Log, parts: Split, catalogue: Catalogue) -> Matrix:
    """By EASE's validation nDCG@10, mean over users, with the recency half-life that the features use."""
    place = np.unique(parts.validation.user, return_inverse=True)[1]
    weights = parts.validation.weights(len(catalogue), 5)
    quality = {}
    for positives_only in (True, False) if not data.positive.all() else (False,):
        rows = parts.full & data.positive if positives_only else parts.full
        met = b.interactions(data, rows, len(catalogue))
        for value in REGULARISATIONS:
            gain = target_ndcg(b.ease(met, value).score(weights), parts.validation, 10)
            users = np.bincount(place, gain) / np.bincount(place) if len(gain) else np.zeros(1)
            quality[Matrix(positives_only, value)] = float(users.mean())
    return max(quality, key=lambda matrix: quality[matrix])
