"""How the sequence tower is trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.histories import Log, Points
from pipeline.models.sequence import Sequence
from pipeline.models.tower import MOST_ROWS
from pipeline.training.fitting import fit
from pipeline.training.networks import SequenceTower, one_thread
from pipeline.training.task import Batches, Run, Task

EPOCHS, BATCH = 8, 32
MORE_EPOCHS = 3  # on all of train, from the weights fitted on its inner rows


def fit_sequence(
    run: Run,
    log: Log,
    rows: np.ndarray,
    text: np.ndarray | None,
    items: int,
    phase: str,
    before: Sequence | None = None,
) -> Sequence:
    """On the rows of a mask; `before`: a tower whose weights it goes on from, for fewer epochs."""
    known = np.zeros(items, bool)
    known[log.item[rows]] = True
    torch.manual_seed(run.seed)
    tower, epochs = SequenceTower(known, text, run.settings.user_tower), EPOCHS
    if before is not None and before.kind == tower.kind:
        epochs = MORE_EPOCHS
        weights = {key: torch.from_numpy(value) for key, value in before.weights.items() if key != "known"}
        tower.load_state_dict(weights, strict=False)
    torch.manual_seed(run.seed)
    task = SequenceTask(run, phase, tower, log, rows, None)
    if len(task.segments):
        with one_thread():
            fit(run, task, Batches(run, phase, len(task.segments), BATCH), epochs, validate=False)
    return tower.sequence()


class SequenceTask(Task):
    """The tower learns which success comes next; the softmax is over items of its own rows only.

    A target is predicted from the rows strictly before its timestamp, as at a point of evaluation, so rows of
    one timestamp never explain each other.
    """

    MOST_CLASSES = 1024  # of the softmax: a new random choice each step, and the batch's targets

    def __init__(
        self,
        run: Run,
        phase: str,
        tower: SequenceTower,
        data: Log,
        rows: np.ndarray,
        validation: Points | None,
    ) -> None:
        super().__init__(run, validation)
        self.phase, self.learning_rate = phase, 8e-3
        self.tower, self.data = tower, data
        self.segments = _segments(data, rows, MOST_ROWS)
        self.classes = np.unique(data.item[rows])
        new = np.r_[True, (np.diff(data.time) != 0) | (np.diff(data.user) != 0)]
        self.group_start = np.maximum.accumulate(np.where(new, np.arange(len(data)), 0))

    def training_step(self, batch: np.ndarray, index: int) -> Tensor | None:
        start, stop = self.segments[batch].T
        rows = start[:, None] + np.arange(int((stop - start).max()))
        inside = rows < stop[:, None]
        rows = np.where(inside, rows, 0)
        before = self.group_start[rows] - start[:, None]  # rows of the segment strictly earlier
        sequence, place = np.nonzero(inside & self.data.positive[rows] & (before > 0))
        if not len(sequence):
            return None
        target = self.data.item[rows[sequence, place]]
        classes = self.classes
        if len(classes) > self.MOST_CLASSES:
            generator = self.run_.generator(f"{self.phase} {index}", self.current_epoch)
            classes = np.union1d(generator.choice(classes, self.MOST_CLASSES, replace=False), target)
        vectors = self.tower.items()
        item = torch.from_numpy(np.where(inside, self.data.item[rows], self.tower.padding)).long()
        liked = torch.from_numpy((self.data.positive[rows] & inside).astype(np.int64))
        states = self.tower(item.to(self.device), liked.to(self.device), vectors)
        index_of = torch.from_numpy(classes).long().to(self.device)
        chosen = states[torch.from_numpy(sequence), torch.from_numpy(before[sequence, place])]
        logits = chosen @ vectors[index_of].T + self.tower.bias[index_of]
        goal = torch.from_numpy(np.searchsorted(classes, target)).to(self.device)
        return self.record(F.cross_entropy(logits, goal), len(batch))


def _segments(data: Log, rows: np.ndarray, length: int) -> np.ndarray:
    """(segments, 2) row spans [start, stop) of at most `length` rows of one user, among the mask's rows."""
    chosen = np.flatnonzero(rows)
    if not len(chosen):
        return np.zeros((0, 2), np.int64)
    new = np.r_[True, (np.diff(data.user[chosen]) != 0) | (np.diff(chosen) != 1)]
    start = np.flatnonzero(new)
    place = np.arange(len(chosen)) - np.repeat(start, np.diff(np.r_[start, len(chosen)]))
    begin = np.flatnonzero(place % length == 0)
    return np.stack([chosen[begin], chosen[np.r_[begin[1:], len(chosen)] - 1] + 1], axis=1)
