"""Fine-tune the language model on what users took, and encode every item's text before and after.

In: the prepared data, the rows that may be learned from. Out: the encoder, its vectors, what the report says.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from pipeline.data.histories import Points, Prepared
from pipeline.errors import ConfigError
from pipeline.models.encoder import TextEncoder, tokenize
from pipeline.params import Finetune
from pipeline.training.fitting import fit, give_back, is_out_of_memory
from pipeline.training.task import Batches, Run
from pipeline.training.text_task import Texts, TextTask, frozen_layers

log = logging.getLogger(__name__)

POINTS_PER_EPOCH = 4_096
HALF_LIFE = 5.0  # of a history, in its items


def text_vectors(
    prepared: Prepared, run: Run, inner: np.ndarray, validation: Points
) -> tuple[TextEncoder, np.ndarray, np.ndarray, dict[str, object]]:
    """(tuned encoder, (items, width) vectors before, after, what the summary says of it).

    `inner`: (rows of the log,) bool, what is learned from; `validation` chooses the epoch.
    """
    texts = prepared.catalogue.items["item_text"].fillna("").tolist()
    empty = np.array([not text for text in texts], bool)
    there = np.flatnonzero(~empty)
    encoder = TextEncoder.load(run.settings.encoder, run.settings.max_length)
    encoder.erasure = None  # of other weights than it will have
    tokens, below = tokenize(encoder, texts), frozen_layers(encoder, run.settings)
    # An item without text must not pull the others: its vector is that of an empty string, never a target.
    points = prepared.log.successes(inner & ~empty[prepared.log.item])
    points = points[np.flatnonzero(points.lengths > 0)]
    untrained = _nothing_to_train(run.settings, bool(empty.all()), len(points))
    file = run.folder / "hidden.npy"
    with run.phases.of("encoding"):
        hidden = encoder.lower_activations(tokens, below, file) if below and not untrained else None

    def encode() -> np.ndarray:
        vectors = np.zeros((len(texts), encoder.width), np.float32)
        with run.phases.of("encoding"), torch.no_grad():
            vectors[there] = encoder.encode(tokens, there, hidden, below).cpu().numpy()
        return vectors

    begin = time.perf_counter()
    frozen = tuned = encode()
    a_text = (time.perf_counter() - begin) / max(1, len(there))
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
        told |= _fine_tune(run, encoder, Texts(tokens, hidden, frozen), points, validation, a_text)
        tuned = encode()
        give_back()  # what training held
    return encoder, frozen, tuned, told


def _fine_tune(
    run: Run, encoder: TextEncoder, texts: Texts, points: Points, validation: Points, a_text: float
) -> dict[str, object]:
    """Leaves the best weights in the encoder. Raises ConfigError with what fits where memory ends."""
    task = TextTask(run, encoder, texts, points, validation, HALF_LIFE)
    layers, size = len(encoder.layers), run.settings.batch_size
    log.info("%s", _announcement(run.settings, layers, len(texts.tokens), len(points), a_text))
    batches = Batches(run, task.phase, len(points), size, POINTS_PER_EPOCH)
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
    steps = -(-min(points, POINTS_PER_EPOCH) // s.batch_size) * s.epochs
    encoded = s.encode_per_step if s.cache_steps else min(texts, s.batch_size * (TextTask.HISTORY + 1))
    looks = s.epochs * min(texts, TextTask.LOOK_ITEMS)
    seconds = a_text * (3 * steps * encoded + looks + texts)
    trained = min(layers, s.trainable_layers)
    kind = "" if s.lora_rank is None else f" by corrections of rank {s.lora_rank}"
    return (
        f"text: {s.encoder}: {trained} of {layers} layers trained{kind}, {layers - trained} frozen; "
        f"{texts:,} items, {steps} steps of {s.batch_size} points, about {seconds:.0f} s"
    )
