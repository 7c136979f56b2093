"""The ablations' sequence towers, trained by a second process while the first trains the challenger's.

A tower takes one core, and depends on nothing but the log, the text vectors and the seed. The second process
leaves each where `fit` looks for what is trained already, so the weights are the same whoever made them; if
it fails, the first process makes what is missing, and says what is wrong.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from pipeline.data.histories import Log
from pipeline.models.sequence import Sequence
from pipeline.params import Finetune
from pipeline.run import end_with_parent, processors
from pipeline.training.cost import note_beside
from pipeline.training.fitting import DONE
from pipeline.training.sequence_task import fit_sequence
from pipeline.training.split import Split
from pipeline.training.task import Run

logger = logging.getLogger(__name__)
FEWEST_ROWS, MOST_ROWS = 50_000, 2_000_000  # a process takes seconds to start, and memory of its own

Stretches = list[tuple[str, np.ndarray]]
Texts = dict[str, np.ndarray | None]


def stretches(name: str, rows: Split) -> Stretches:
    """(phase, rows) that the tower of one model is trained on, one after the other."""
    later = [(f"sequence to cut {number} ({name})", cut.inner) for number, cut in enumerate(rows.cuts[1:], 2)]
    first = (f"sequence ({name})", rows.cuts[0].inner)
    return [first, *later, (f"sequence on all of train ({name})", rows.full)]


@contextmanager
def trained_ahead(
    run: Run, log: Log, rows: Split, items: int, texts: Texts
) -> Iterator[Callable[[str], None]]:
    """Trains the towers of these models, name -> text vectors. Yields what waits until one model has its own.

    Of few rows, of very many, with one core or with a GPU it does nothing.
    """
    pays = FEWEST_ROWS <= len(log) <= MOST_ROWS and processors() > 1 and not torch.cuda.is_available()
    if not texts or not pays:
        yield lambda name: None
        return
    jobs = [(stretches(name, rows), vectors) for name, vectors in texts.items()]
    arguments = (run.settings, run.seed, run.folder, log, items, jobs)
    other = multiprocessing.get_context("spawn").Process(target=_train, args=arguments, daemon=True)
    other.start()
    logger.info("a second process trains the towers of %s", " and ".join(texts))

    def wait(name: str) -> None:
        if name not in texts:
            return
        last = run.folder / stretches(name, rows)[-1][0] / DONE
        with run.phases.of("waiting for towers"):
            while other.is_alive() and not last.exists():
                time.sleep(0.05)

    try:
        yield wait
    finally:
        other.kill()
        other.join()


def _train(
    settings: Finetune,
    seed: int,
    folder: Path,
    log: Log,
    items: int,
    jobs: list[tuple[Stretches, np.ndarray | None]],
) -> None:
    end_with_parent()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the first process has the progress bar
    torch.use_deterministic_algorithms(True, warn_only=True)
    run = Run(settings, seed, folder)
    for phases, vectors in jobs:
        tower: Sequence | None = None
        for phase, mask in phases:
            tower = fit_sequence(run, log, mask, vectors, items, phase, tower)
            note_beside(folder, run.phases)
