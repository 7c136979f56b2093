"""Fine-tuning as it is usually written: every item of every sample goes through the whole encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.training.text_task import TextTask


def loss(task: TextTask, batch: np.ndarray) -> tuple[Tensor, int]:
    """(loss of these points, texts encoded): what TextTask.step gives with cache_steps 0, the slow way.

    Nothing is shared: a text is encoded as often as it occurs in the batch, all padded to the longest.
    """
    points = task.train_points[batch].newest(task.HISTORY)
    tokens = task.texts.tokens
    weights = points.weights(len(tokens), task.half_life)
    sample = np.repeat(np.arange(len(points)), np.diff(weights.indptr))
    item = np.concatenate([weights.indices, points.target])
    ids, mask = tokens.padded(item, task.encoder.pad)
    vectors = task.encoder(ids.to(task.device), mask.to(task.device))
    centred = F.normalize(vectors - task.centre, dim=-1)
    weight = torch.from_numpy(weights.data).to(task.device).unsqueeze(-1)
    user = torch.zeros(len(points), centred.shape[1], device=task.device)
    user = user.index_add(0, torch.from_numpy(sample).to(task.device), weight * centred[: len(sample)])
    classes, first = np.unique(item, return_index=True)
    logits = F.normalize(user, dim=-1) @ centred[torch.from_numpy(first)].T / task.space.log_temperature.exp()
    logits = logits + task.log_popularity[torch.from_numpy(classes)].to(task.device)
    met = torch.from_numpy(weights[:, classes].toarray() > 0).to(task.device)
    target = torch.from_numpy(np.searchsorted(classes, points.target)).to(task.device)
    return F.cross_entropy(logits.masked_fill(met, -torch.inf), target), len(item)
