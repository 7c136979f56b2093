"""What is trained beside the encoder (pipeline/models/text_task.py): the sequence tower and the scorer."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.histories import Log, Points
from pipeline.models.networks import FusionScorer, SequenceTower
from pipeline.models.sampling import Candidates
from pipeline.models.training import Run, Task


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
        self.segments = _segments(data, rows, tower.MOST_ROWS)
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


def _on(device: torch.device, features: np.ndarray) -> Tensor:
    """float16 as float32; numpy takes several times as long to convert as torch."""
    return torch.from_numpy(features).to(device).float()


def _listwise(logits: Tensor, sample: Candidates, batch: np.ndarray) -> Tensor:
    """Softmax cross-entropy over each point's candidates, weighted by point; logits: (points, candidates)."""
    device = logits.device
    logits = logits + torch.from_numpy(sample.log_weight[batch]).to(device)
    target = torch.from_numpy(sample.target[batch]).to(device)
    weight = torch.from_numpy(sample.weight[batch]).to(device)
    return (F.cross_entropy(logits, target, reduction="none") * weight).mean()


class ScorerTask(Task):
    """Listwise softmax over a point's candidates, each standing for the items that it was drawn from."""

    weight_decay = 1e-3

    def __init__(
        self,
        run: Run,
        phase: str,
        scorer: FusionScorer,
        sample: Candidates,
        validation: Points,
        validation_sample: Candidates,
    ) -> None:
        super().__init__(run, validation)
        self.validation_sample = validation_sample
        self.phase, self.learning_rate = phase, 2e-3
        self.scorer, self.sample = scorer, sample

    @torch.no_grad()
    def gains(self, rows: np.ndarray) -> np.ndarray:
        """Among the hardest candidates alone: what stands above the target is nearly always one of them."""
        sample = self.validation_sample
        features = _on(self.device, sample.features[rows])
        scores = self.scorer(features).cpu().numpy()
        scores[sample.log_weight[rows] < -1e8] = -np.inf
        rank = (scores >= scores[np.arange(len(rows)), sample.target[rows]][:, None]).sum(axis=1)
        return np.where(rank <= 10, 1 / np.log2(1 + rank), 0)

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        features = _on(self.device, self.sample.features[batch])
        return self.record(_listwise(self.scorer(features), self.sample, batch), len(batch))


class ColdTask(Task):
    """The scorer of items that train never had, beside the one of all others, which stays as it is.

    The same listwise softmax; only the candidates whose feature at `place` says cold are scored anew.
    """

    weight_decay = 1e-3

    def __init__(
        self,
        run: Run,
        phase: str,
        warm: FusionScorer,
        cold: FusionScorer,
        sample: Candidates,
        place: int,
        validation: Points,
    ) -> None:
        super().__init__(run, validation)
        self.phase, self.learning_rate = phase, 2e-3
        self.cold, self.sample, self.place = cold, sample, place
        # In a list: no part of what is trained and saved. A copy: it moves to the device, the caller's stays.
        self.warm = [copy.deepcopy(warm)]

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        features = _on(self.device, self.sample.features[batch])
        newcomers = features[..., self.place] > 0
        with torch.no_grad():
            logits = self.warm[0].to(self.device)(features)
        logits = logits.masked_scatter(newcomers, self.cold(features[newcomers]))
        return self.record(_listwise(logits, self.sample, batch), len(batch))
