"""How the sequence tower is trained."""

from __future__ import annotations

from dataclasses import dataclass

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
MOST_STEPS = 256  # an epoch: where there are many users, batches are larger
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
        batch = max(BATCH, -(-len(task.segments) // MOST_STEPS))
        with one_thread():
            fit(run, task, Batches(run, phase, len(task.segments), batch), epochs, validate=False)
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
        parts = [part for part in map(self._part, self._alike(batch)) if len(part.target)]
        if not parts:
            return None
        drawn = self.classes
        if len(drawn) > self.MOST_CLASSES:
            generator = self.run_.generator(f"{self.phase} {index}", self.current_epoch)
            drawn = generator.choice(drawn, self.MOST_CLASSES, replace=False)
        # Of a large catalogue a step needs few items: the texts of all would cost more than all else. Targets
        # are among what is read.
        read = [part.item.ravel() for part in parts]
        items = np.unique(np.concatenate([drawn, [self.tower.padding], *read]))
        vectors = self.tower.items(self._there(items))
        losses = []
        for part in parts:
            item = self._there(np.searchsorted(items, part.item))
            states = self.tower(item, self._there(part.liked), vectors)
            chosen = states[torch.from_numpy(part.sequence), torch.from_numpy(part.before)]
            classes = np.union1d(drawn, part.target)
            among = vectors[self._there(np.searchsorted(items, classes))]
            logits = chosen @ among.T + self.tower.bias[self._there(classes)]
            goal = self._there(np.searchsorted(classes, part.target))
            losses.append(F.cross_entropy(logits, goal, reduction="sum"))
        loss = torch.stack(losses).sum() / sum(len(part.target) for part in parts)
        return self.record(loss, len(batch))

    def _alike(self, batch: np.ndarray) -> list[np.ndarray]:
        """BATCH segments at a time, of about one length: padding is computed for nothing."""
        if len(batch) > BATCH:
            batch = batch[np.argsort(np.diff(self.segments[batch])[:, 0], kind="stable")]
        return [batch[begin : begin + BATCH] for begin in range(0, len(batch), BATCH)]

    def _part(self, segments: np.ndarray) -> Part:
        start, stop = self.segments[segments].T
        rows = start[:, None] + np.arange(int((stop - start).max()))
        inside = rows < stop[:, None]
        rows = np.where(inside, rows, 0)
        before = self.group_start[rows] - start[:, None]  # rows of the segment strictly earlier
        liked = self.data.positive[rows] & inside
        sequence, place = np.nonzero(liked & (before > 0))
        item = np.where(inside, self.data.item[rows], self.tower.padding)
        return Part(item, liked, sequence, before[sequence, place], item[sequence, place])

    def _there(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers).long().to(self.device)


@dataclass(frozen=True)
class Part:
    """Of some segments: what is read, and what is to be told from it."""

    item: np.ndarray  # (segments, length), padding behind
    liked: np.ndarray  # (segments, length) bool
    sequence: np.ndarray  # (targets,) of which segment
    before: np.ndarray  # (targets,) from how many of its rows
    target: np.ndarray  # (targets,) items


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
