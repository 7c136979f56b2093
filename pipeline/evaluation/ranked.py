"""The lists of every model at every test point, and the seconds that they took.

Trained models are asked together, some points at a time: what they have in common is made once. Where points
are many, a second process ranks those of a training, which it loads itself, while the first tunes the
baselines and ranks these; if it fails, the first ranks them too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from pipeline.data.histories import Points, Prepared, load_prepared
from pipeline.evaluation.figures import CHALLENGER
from pipeline.evaluation.findings import FROZEN_STATE, FROZEN_TEXT, WITHOUT_TEXT
from pipeline.evaluation.tuning import frozen_order
from pipeline.models.artifacts import has_model
from pipeline.models.candidates import Brought
from pipeline.models.ranking import Model, rank_points, top_candidates
from pipeline.models.recommender import Recommender
from pipeline.run import end_with_parent, processors

log = logging.getLogger(__name__)

FEWEST_POINTS = 1_000  # a process takes seconds to start

Lists = dict[str, tuple[np.ndarray, np.ndarray]]
"""Model -> (points, k) item indices, -1 for none; (points, k) scores, NaN: not scored."""


@dataclass(frozen=True)
class Ranked:
    lists: Lists
    seconds: dict[str, float]  # of models that are asked together, the first makes what they have in common

    brought: Brought = field(default_factory=Brought)  # by the challenger's retrievers

    def with_those(self, others: Ranked) -> Ranked:
        return Ranked(self.lists | others.lists, self.seconds | others.seconds, others.brought)


def rank(
    models: Mapping[str, Model],
    prepared: Prepared,
    k: int,
    progress: Callable[[str], object] = lambda name: None,
) -> Ranked:
    """`progress` hears each name in its turn."""
    points, order, found = prepared.test, frozen_order(prepared), Ranked({}, {})
    of_one_log: dict[int, dict[str, Recommender]] = {}  # they are asked over the same log
    for name, model in models.items():
        progress(name)
        if isinstance(model, Recommender):
            of_one_log.setdefault(id(model.parts.felt), {})[name] = model
        else:
            begin = time.perf_counter()
            found.lists[name] = rank_points(model, points, prepared.catalogue, order, k)
            found.seconds[name] = time.perf_counter() - begin
    for together in of_one_log.values():
        _rank_together(together, points, prepared, order, k, found)
    return replace(found, lists={name: found.lists[name] for name in models})


def _rank_together(
    models: Mapping[str, Recommender],
    points: Points,
    prepared: Prepared,
    order: np.ndarray,
    k: int,
    found: Ranked,
) -> None:
    for name in models:
        lists = np.full((len(points), k), -1, np.int32), np.full((len(points), k), np.nan, np.float32)
        found.lists[name], found.seconds[name] = lists, 0.0
    done = 0
    for asked in next(iter(models.values())).parts.ask(points):
        chunk = slice(done, done + len(asked.points))
        for name, model in models.items():
            begin = time.perf_counter()
            retrieved = model.parts.retrieve(asked)
            items = model.parts.candidates(asked, retrieved)
            if name == CHALLENGER:
                found.brought.add(retrieved, items, asked.points.target)
            scores = model.scores(asked, items)
            top = top_candidates(items, scores, asked.points, prepared.catalogue, order, k)
            found.lists[name][0][chunk], found.lists[name][1][chunk] = top
            found.seconds[name] += time.perf_counter() - begin
        done = chunk.stop


@dataclass(frozen=True)
class Training:
    """Where the prepared data lie, and the models that were trained on them."""

    data: Path
    challenger: Path
    ablations: Path
    delay_seconds: float

    def models(self, challenger: Recommender, prepared: Prepared) -> dict[str, Recommender]:
        """The challenger, its trained ablations, and itself with the state of the end of train."""
        items, rows, found = prepared.catalogue.items, prepared.log, {CHALLENGER: challenger}
        for name in (WITHOUT_TEXT, FROZEN_TEXT):
            if has_model(self.ablations / name):
                model = Recommender.load(self.ablations / name, items, rows, name, self.delay_seconds)
                found[name] = model.sharing(challenger)
        return found | {FROZEN_STATE: challenger.with_state(prepared.train_end + 1, FROZEN_STATE)}


@contextmanager
def ranked_beside(
    training: Training, challenger: Recommender, prepared: Prepared, k: int
) -> Iterator[Callable[[], Ranked]]:
    """Yields what gives the lists of the training's models, from a second process where that pays."""

    def here() -> Ranked:
        return rank(training.models(challenger, prepared), prepared, k)

    if len(prepared.test) < FEWEST_POINTS or processors() < 2:
        yield here
        return
    spawn = multiprocessing.get_context("spawn")  # not forked: BLAS's threads would be copied as they are
    receiver, sender = spawn.Pipe(duplex=False)
    other = spawn.Process(target=_rank_there, args=(sender, training, k), daemon=True)
    other.start()
    sender.close()

    def there() -> Ranked:
        try:
            found: Ranked = receiver.recv()
        except EOFError:
            log.warning("the second process ended without its lists: the trained models are ranked here")
            return here()
        return found

    try:
        yield there
    finally:
        other.kill()
        other.join()


def _rank_there(sender: Connection, training: Training, k: int) -> None:
    end_with_parent()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the first process has the progress bar
    prepared = load_prepared(training.data)
    items, rows, delay = prepared.catalogue.items, prepared.log, training.delay_seconds
    challenger = Recommender.load(training.challenger, items, rows, delay_seconds=delay)
    sender.send(rank(training.models(challenger, prepared), prepared, k))
