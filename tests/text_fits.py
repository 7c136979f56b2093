"""Training of the encoder in a world made by hand, on any device: of test_gpu.py, and a script of its own.

Needs torch, Lightning, transformers and NumPy, but no tables, so it runs where little is installed.
As a script: python text_fits.py ENCODER FOLDER SETTINGS, the settings of `finetune` as JSON; the curves are
written to FOLDER/curves.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch

from pipeline.bench.training import Way, World, make
from pipeline.data.histories import Log
from pipeline.models.encoder import TextEncoder
from pipeline.params import Finetune, Params
from pipeline.training import fitting
from pipeline.training.task import Batches, Run
from pipeline.training.text_task import TextTask

EPOCHS, SEED = 2, 1


class Stopped(Exception):
    """In place of a kill."""


def world(settings: Finetune, items: int = 60, users: int = 200, rows: int = 8, words: int = 20) -> World:
    """Users of one taste take red items, those of the other blue ones; the last row of each validates."""
    generator = np.random.default_rng(5)
    colours = np.where(np.arange(items) % 2, "red", "blue")
    texts = [
        f"{colour} thing number " + " ".join(str(n) for n in generator.integers(100, size=words))
        for colour in colours
    ]
    tokens = TextEncoder.load(settings.encoder, settings.max_length).tokenize(texts)
    taken = [generator.permutation(np.arange(user % 2, items, 2))[:rows] for user in range(users)]
    log = _log(np.concatenate(taken).astype(np.int32), users, rows)
    points = log.points(log.user, log.item, log.time)
    place = np.arange(len(log)) % rows
    train = points[np.flatnonzero((place > 0) & (place < rows - 1))]
    return World(settings, tokens, train, points[np.flatnonzero(place == rows - 1)], 5.0, 0.0)


def _log(item: np.ndarray, users: int, rows: int) -> Log:
    every = np.ones(len(item), bool)
    return Log(
        user=np.repeat(np.arange(users, dtype=np.int32), rows),
        item=item,
        time=np.tile(np.arange(rows, dtype=np.int64), users),
        value=np.full(len(item), np.nan, np.float32),
        positive=every,
        fit=every,
        window=np.zeros(len(item), np.int8),
        indptr=np.arange(users + 1, dtype=np.int64) * rows,
    )


def settings(encoder: Path, folder: Path, **finetune: object) -> Finetune:
    """Those of params.yaml but for what makes the tiny world learn in a few steps."""
    chosen = {"learning_rate": 3e-3} | finetune
    return Params.load(tiny.params(folder / "params.yaml", encoder, **chosen)).finetune


def fit(given: Finetune, folder: Path, stop_at: int | None = None) -> tuple[TextTask, list[dict[str, Any]]]:
    """The task as Lightning leaves it on the machine's device, and its curves; goes on from a checkpoint.

    Raises Stopped before the step `stop_at` of the optimiser.
    """
    small = world(given)
    task, _ = make(small, Way(given), SEED)
    run = Run(given, SEED, folder)
    task.run_ = run
    whole = task.step

    def step(batch: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        if task.trainer.global_step == stop_at:
            raise Stopped
        return whole(batch, generator)

    task.step = step  # type: ignore[method-assign]
    batches = Batches(run, task.phase, len(small.train), given.batch_size)
    fitting.fit(run, task, batches, EPOCHS, processes=True)
    return task, run.curves


def values(curves: list[dict[str, Any]], metric: str) -> np.ndarray:
    """One value an epoch."""
    return np.array([row["value"] for row in curves if row["metric"] == metric])


if __name__ == "__main__":
    encoder, folder = Path(sys.argv[1]), Path(sys.argv[2])
    _, curves = fit(settings(encoder, folder, **json.loads(sys.argv[3])), folder)
    (folder / "curves.json").write_text(json.dumps(curves))
